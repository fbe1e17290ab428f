//! Tests of the whole crate: what each statement becomes, what fails and where, how a text is cut.

mod errors;
mod postgres;
mod statements;
