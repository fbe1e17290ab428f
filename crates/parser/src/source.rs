//! The text being parsed, and the way from the tokenizer's lines and columns to offsets.
//!
//! The tokenizer counts lines and columns in characters. Postgres clients want one 1-based character offset, and slicing
//! wants bytes. Both come from a table of line starts, so that a position costs no walk over the text before its line.

use std::cell::Cell;

use sqlparser::tokenizer::Location;

#[derive(Clone, Copy)]
struct LineStart {
    byte: usize,
    chars: usize,
}

/// A text with its line starts.
pub(crate) struct Source<'a> {
    sql: &'a str,
    lines: Vec<LineStart>,
    chars: usize,
    /// The last byte offset computed, because statements of a long line are asked for in order.
    last: Cell<(Location, usize)>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(sql: &'a str) -> Self {
        let mut lines = vec![LineStart { byte: 0, chars: 0 }];
        let mut chars = 0;
        for (byte, c) in sql.char_indices() {
            chars += 1;
            if c == '\n' {
                lines.push(LineStart {
                    byte: byte + 1,
                    chars,
                });
            }
        }
        Self {
            sql,
            lines,
            chars,
            last: Cell::new((Location::new(1, 1), 0)),
        }
    }

    pub(crate) fn sql(&self) -> &'a str {
        self.sql
    }

    /// The position just behind the last character, where "end of input" is reported.
    pub(crate) fn end_position(&self) -> usize {
        self.chars + 1
    }

    /// The 1-based character position of a location; an empty location is the end of input.
    pub(crate) fn position(&self, at: Location) -> usize {
        match self.line(at) {
            Some(line) => line.chars + column(at) + 1,
            None => self.end_position(),
        }
    }

    /// The byte offset of a location; an empty location is the end of input.
    pub(crate) fn byte(&self, at: Location) -> usize {
        let Some(line) = self.line(at) else {
            return self.sql.len();
        };
        if self.chars == self.sql.len() {
            return (line.byte + column(at)).min(self.sql.len());
        }
        let (seen, seen_byte) = self.last.get();
        let (from, skip) = if seen.line == at.line && seen.column <= at.column {
            (seen_byte, column(at) - column(seen))
        } else {
            (line.byte, column(at))
        };
        let rest = &self.sql[from..];
        let byte = from
            + rest
                .char_indices()
                .nth(skip)
                .map_or(rest.len(), |(byte, _)| byte);
        self.last.set((at, byte));
        byte
    }

    pub(crate) fn slice(&self, start: Location, end: Location) -> &'a str {
        let start = self.byte(start);
        let end = self.byte(end);
        &self.sql[start..end.max(start)]
    }

    fn line(&self, at: Location) -> Option<LineStart> {
        let index = usize::try_from(at.line.checked_sub(1)?).ok()?;
        self.lines.get(index).copied()
    }
}

fn column(at: Location) -> usize {
    usize::try_from(at.column.saturating_sub(1)).unwrap_or(usize::MAX)
}

/// The 1-based character position in `sql` of a location found in a `sqlparser` tree that was parsed from `sql`.
/// `None` for the empty location, which trees made by rewriting carry.
pub fn position_of(sql: &str, at: Location) -> Option<usize> {
    (at.line > 0).then(|| Source::new(sql).position(at))
}
