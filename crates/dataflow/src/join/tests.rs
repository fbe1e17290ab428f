//! Against a naive oracle.
