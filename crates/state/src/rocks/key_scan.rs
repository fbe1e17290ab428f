//! Reading one key of map form: what RocksDB has of it, shadowed by what the overlay knows.

use super::layout;
use crate::memory::within;
use crate::table::StateError;
use rocksdb::{DBRawIterator, ReadOptions};
use std::cmp::Ordering;
use std::ops::{Bound, ControlFlow};

/// How an iterator has to be made for scans of single keys. Forwards, the filters tell where a key has no cells; backwards
/// the search may start behind the key's last cell, which filters know nothing of.
pub fn key_scan_options(reverse: bool) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_prefix_same_as_start(!reverse);
    options.set_total_order_seek(reverse);
    options
}

/// What a scan of one key starts from.
pub struct KeyScan<'a> {
    pub overlay: Vec<(&'a [u8], Option<&'a [u8]>)>,
    pub bounds: (Bound<&'a [u8]>, Bound<&'a [u8]>),
    pub reverse: bool,
}

/// Merges what RocksDB has of a key with what the overlay knows of it.
pub fn scan_key(
    iterator: &mut DBRawIterator<'_>,
    prefix: &[u8],
    scan: KeyScan<'_>,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
) -> Result<(), StateError> {
    let KeyScan {
        overlay,
        bounds,
        reverse,
    } = scan;
    let mut overlay = overlay.into_iter().peekable();
    seek(iterator, prefix, bounds, reverse);
    loop {
        let disk = iterator
            .item()
            .and_then(|(key, value)| Some((key.strip_prefix(prefix)?, value)));
        let disk = disk.filter(|(sub, _)| within(sub, bounds));
        let order = match (overlay.peek(), disk) {
            (None, None) => return Ok(iterator.status()?),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((known, _)), Some((sub, _))) if reverse => sub.cmp(known),
            (Some((known, _)), Some((sub, _))) => known.cmp(&sub),
        };
        let flow = match (order, disk) {
            (Ordering::Greater, Some((sub, value))) => visit(sub, value),
            _ => match overlay.next() {
                Some((sub, Some(value))) => visit(sub, value),
                _ => ControlFlow::Continue(()),
            },
        };
        if order != Ordering::Less {
            step(iterator, reverse);
        }
        if flow.is_break() {
            return Ok(());
        }
    }
}

/// Places the iterator on the first cell within the bounds.
fn seek(
    iterator: &mut DBRawIterator<'_>,
    prefix: &[u8],
    bounds: (Bound<&[u8]>, Bound<&[u8]>),
    reverse: bool,
) {
    let start = if reverse { bounds.1 } else { bounds.0 };
    let (sub, excluded) = match start {
        Bound::Included(sub) => (Some(sub), false),
        Bound::Excluded(sub) => (Some(sub), true),
        Bound::Unbounded => (None, false),
    };
    let target = match (sub, reverse) {
        (Some(sub), _) => [prefix, sub].concat(),
        (None, false) => prefix.to_vec(),
        (None, true) => match layout::after_prefix(prefix) {
            Some(end) => end,
            None => return iterator.seek_to_last(),
        },
    };
    if reverse {
        iterator.seek_for_prev(&target);
    } else {
        iterator.seek(&target);
    }
    // The end of a prefix does not belong to it either.
    if (excluded || (reverse && sub.is_none())) && iterator.key() == Some(&target) {
        step(iterator, reverse);
    }
}

fn step(iterator: &mut DBRawIterator<'_>, reverse: bool) {
    if reverse {
        iterator.prev();
    } else {
        iterator.next();
    }
}
