//! Reads several sorted layers as one, equal rows summed.

use super::layer::Layer;
use super::sorted::Position;
use crate::StateError;
use std::sync::Arc;
use tidegate_types::Diff;

/// What a cursor reads beside layers: rows (key group and encoding) in order, with their diffs.
pub trait RowSource: Send {
    fn current(&self) -> Option<(&[u8], Diff)>;
    fn advance(&mut self) -> Result<(), StateError>;
}

/// Layers are told apart from the rest so that the usual case needs no dynamic dispatch for each row.
enum Source {
    Layer { layer: Arc<Layer>, at: Position },
    Other(Box<dyn RowSource>),
}

impl Source {
    fn current(&self) -> Option<(&[u8], Diff)> {
        match self {
            Self::Layer { layer, at } => layer.sorted().get(*at),
            Self::Other(source) => source.current(),
        }
    }

    fn advance(&mut self) -> Result<(), StateError> {
        match self {
            Self::Layer { layer, at } => {
                *at = layer.sorted().after(*at);
                Ok(())
            }
            Self::Other(source) => source.advance(),
        }
    }
}

/// A merge of sorted sources. Rows whose diffs add up to zero are skipped.
pub struct Cursor {
    sources: Vec<Source>,
    /// A binary heap of indices of sources that have a row, the least row on top.
    heap: Vec<usize>,
    row: Vec<u8>,
}

impl Cursor {
    /// From the first row that is not less than `from`.
    pub fn new(layers: &[Arc<Layer>], from: &[u8], more: Option<Box<dyn RowSource>>) -> Self {
        let mut sources: Vec<Source> = Vec::with_capacity(layers.len() + 1);
        for layer in layers {
            let at = if from.is_empty() {
                layer.sorted().start()
            } else {
                layer.sorted().seek(from)
            };
            sources.push(Source::Layer {
                layer: layer.clone(),
                at,
            });
        }
        sources.extend(more.map(Source::Other));
        let heap = (0..sources.len())
            .filter(|s| sources[*s].current().is_some())
            .collect();
        let mut cursor = Self {
            sources,
            heap,
            row: Vec::new(),
        };
        for at in (0..cursor.heap.len() / 2).rev() {
            cursor.sift_down(at);
        }
        cursor
    }

    /// The next row (key group and encoding) and the sum of its diffs, which is not zero.
    pub fn next_row(&mut self) -> Result<Option<(&[u8], Diff)>, StateError> {
        loop {
            let Some(top) = self.heap.first() else {
                return Ok(None);
            };
            let (row, diff) = self.sources[*top]
                .current()
                .expect("a source in the heap has a row");
            self.row.clear();
            self.row.extend_from_slice(row);
            let mut sum = diff;
            self.advance_top()?;
            while let Some(top) = self.heap.first() {
                match self.sources[*top].current() {
                    Some((row, diff)) if row == self.row => sum += diff,
                    _ => break,
                }
                self.advance_top()?;
            }
            if sum != 0 {
                return Ok(Some((&self.row, sum)));
            }
        }
    }

    fn advance_top(&mut self) -> Result<(), StateError> {
        let top = self.heap[0];
        self.sources[top].advance()?;
        if self.sources[top].current().is_none() {
            self.heap.swap_remove(0);
        }
        self.sift_down(0);
        Ok(())
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let mut least = at;
            for child in [left, right] {
                if child < self.heap.len() && self.row_of(child) < self.row_of(least) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }

    fn row_of(&self, at: usize) -> &[u8] {
        self.sources[self.heap[at]]
            .current()
            .expect("a source in the heap has a row")
            .0
    }
}
