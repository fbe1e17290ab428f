//! `to_char(number, pattern)` with Postgres' template patterns: `9 0 . , D G S MI PL SG PR L RN TH FM`. `V` and `EEEE` are
//! refused.

use tidegate_types::{SqlError, SqlState};

/// One element of a pattern.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Item<'a> {
    Nine,
    Zero,
    Point,
    Group,
    /// `S`
    Sign,
    /// `SG`: the sign stays where it is written.
    FixedSign,
    /// `MI`
    Minus,
    /// `PL`
    Plus,
    Currency,
    /// `TH`, `th`
    Ordinal(bool),
    Text(&'a str),
}

#[derive(Default)]
struct Pattern<'a> {
    items: Vec<Item<'a>>,
    fill: bool,
    /// `PR`: negative numbers in angle brackets.
    brackets: bool,
    roman: Option<bool>,
}

fn compile(pattern: &str) -> Result<Pattern<'_>, SqlError> {
    let mut compiled = Pattern {
        fill: true,
        ..Pattern::default()
    };
    let mut rest = pattern;
    while !rest.is_empty() {
        let starts = |p: &str| {
            rest.get(..p.len())
                .is_some_and(|s| s.eq_ignore_ascii_case(p))
        };
        let (item, length) = if starts("FM") {
            compiled.fill = false;
            (None, 2)
        } else if starts("PR") {
            compiled.brackets = true;
            (None, 2)
        } else if starts("RN") {
            compiled.roman = Some(rest.starts_with("RN"));
            (None, 2)
        } else if starts("EEEE") || starts("V") {
            return Err(SqlError::not_supported(format!(
                "\"{}\" in a pattern of to_char",
                if starts("V") { "V" } else { "EEEE" }
            )));
        } else if starts("MI") {
            (Some(Item::Minus), 2)
        } else if starts("PL") {
            (Some(Item::Plus), 2)
        } else if starts("SG") {
            (Some(Item::FixedSign), 2)
        } else if starts("TH") {
            (Some(Item::Ordinal(rest.starts_with("TH"))), 2)
        } else if starts("S") {
            (Some(Item::Sign), 1)
        } else if starts("L") {
            (Some(Item::Currency), 1)
        } else if starts("9") {
            (Some(Item::Nine), 1)
        } else if starts("0") {
            (Some(Item::Zero), 1)
        } else if starts(".") || starts("D") {
            (Some(Item::Point), 1)
        } else if starts(",") || starts("G") {
            (Some(Item::Group), 1)
        } else if let Some(after) = rest.strip_prefix('"') {
            let end = after.find('"').unwrap_or(after.len());
            (Some(Item::Text(&after[..end])), (end + 2).min(rest.len()))
        } else {
            let length = rest.chars().next().map_or(0, char::len_utf8);
            (Some(Item::Text(&rest[..length])), length)
        };
        compiled.items.extend(item);
        rest = &rest[length..];
    }
    let points = compiled.items.iter().filter(|i| **i == Item::Point).count();
    if points > 1 {
        return Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            "multiple decimal points",
        ));
    }
    Ok(compiled)
}

/// A number, given as decimal text without an exponent, by a pattern.
pub(super) fn to_char(number: &str, pattern: &str) -> Result<String, SqlError> {
    let compiled = compile(pattern)?;
    if let Some(upper) = compiled.roman {
        return Ok(roman(number, upper, compiled.fill));
    }
    let point = compiled.items.iter().position(|i| *i == Item::Point);
    let is_digit = |i: &&Item<'_>| matches!(i, Item::Nine | Item::Zero);
    let whole_items = &compiled.items[..point.unwrap_or(compiled.items.len())];
    let before = whole_items.iter().filter(is_digit).count();
    let after = compiled.items[point.map_or(compiled.items.len(), |p| p + 1)..]
        .iter()
        .filter(is_digit)
        .count();
    let (negative, whole, fraction) = rounded(number, after);
    let negative = negative && (whole != "0" || fraction.bytes().any(|b| b != b'0'));
    let overflow = whole != "0" && (before == 0 || whole.len() > before);
    Ok(layout(
        &compiled,
        &Digits {
            negative,
            whole,
            fraction,
            before,
            overflow,
            has_point: point.is_some(),
        },
    ))
}

struct Digits {
    negative: bool,
    whole: String,
    fraction: String,
    /// Places in front of the point.
    before: usize,
    overflow: bool,
    has_point: bool,
}

fn layout(pattern: &Pattern<'_>, digits: &Digits) -> String {
    let items = &pattern.items;
    let has_sign_item = items
        .iter()
        .any(|i| matches!(i, Item::Sign | Item::FixedSign | Item::Minus));
    let sign_at_end = items
        .iter()
        .rposition(|i| matches!(i, Item::Nine | Item::Zero))
        < items.iter().position(|i| *i == Item::Sign);
    // Places to leave empty before the first digit.
    let fraction_shown = if pattern.fill {
        digits.fraction.len()
    } else {
        kept_decimals(items, digits)
    };
    // A lone zero in front of a point is left out, unless nothing else would be left.
    let shown = if digits.whole == "0" && digits.has_point && fraction_shown > 0 {
        0
    } else {
        digits.whole.len()
    };
    let first_zero = items
        .iter()
        .filter(|i| matches!(i, Item::Nine | Item::Zero))
        .take(digits.before)
        .position(|i| *i == Item::Zero)
        .unwrap_or(digits.before);
    let start = digits.before.saturating_sub(shown).min(first_zero);
    let mut out = String::new();
    let own_sign = !has_sign_item && !pattern.brackets;
    let floating = own_sign || (items.contains(&Item::Sign) && !sign_at_end) || pattern.brackets;
    let mark = match (digits.negative, pattern.brackets) {
        (true, true) => "<",
        (true, false) => "-",
        (false, true) => " ",
        (false, false) if own_sign => " ",
        (false, false) => "+",
    };
    let mut signed = !floating;
    let (mut place, mut decimal, mut behind) = (0, 0, false);
    let put_sign = |out: &mut String, signed: &mut bool| {
        if !*signed {
            *signed = true;
            if pattern.fill || mark != " " {
                out.push_str(mark);
            }
        }
    };
    for item in items {
        match item {
            Item::Nine | Item::Zero if !behind => {
                if digits.overflow {
                    put_sign(&mut out, &mut signed);
                    out.push('#');
                } else if place < start {
                    if pattern.fill {
                        out.push(' ');
                    }
                } else {
                    put_sign(&mut out, &mut signed);
                    let from_right = digits.before - place;
                    let digit = digits.whole.len().checked_sub(from_right);
                    out.push(digit.map_or('0', |d| char::from(digits.whole.as_bytes()[d])));
                }
                place += 1;
            }
            Item::Nine | Item::Zero => {
                put_sign(&mut out, &mut signed);
                if digits.overflow {
                    out.push('#');
                } else if decimal < fraction_shown {
                    out.push(char::from(digits.fraction.as_bytes()[decimal]));
                }
                decimal += 1;
            }
            Item::Point => {
                put_sign(&mut out, &mut signed);
                out.push('.');
                behind = true;
            }
            Item::Group => {
                if behind || place > start || digits.overflow {
                    out.push(',');
                } else if pattern.fill {
                    out.push(' ');
                }
            }
            Item::Sign if sign_at_end => out.push(if digits.negative { '-' } else { '+' }),
            Item::Sign => {}
            Item::FixedSign => out.push(if digits.negative { '-' } else { '+' }),
            Item::Minus => match (digits.negative, pattern.fill) {
                (true, _) => out.push('-'),
                (false, true) => out.push(' '),
                (false, false) => {}
            },
            Item::Plus => match (digits.negative, pattern.fill) {
                (false, _) => out.push('+'),
                (true, true) => out.push(' '),
                (true, false) => {}
            },
            // The currency symbol of the C locale.
            Item::Currency => {
                if pattern.fill {
                    out.push(' ');
                }
            }
            Item::Ordinal(upper) => {
                if !digits.negative && !digits.has_point && !digits.overflow {
                    out.push_str(ordinal(&digits.whole, *upper));
                }
            }
            Item::Text(text) => out.push_str(text),
        }
    }
    if pattern.brackets {
        match (digits.negative, pattern.fill) {
            (true, _) => out.push('>'),
            (false, true) => out.push(' '),
            (false, false) => {}
        }
    }
    out
}

/// With `FM`, zeros at the end are left out up to the last `0` of the pattern.
fn kept_decimals(items: &[Item<'_>], digits: &Digits) -> usize {
    let decimals = items
        .iter()
        .skip_while(|i| **i != Item::Point)
        .filter(|i| matches!(i, Item::Nine | Item::Zero));
    let forced = decimals
        .enumerate()
        .filter(|(_, i)| **i == Item::Zero)
        .map(|(n, _)| n + 1)
        .last()
        .unwrap_or(0);
    digits.fraction.trim_end_matches('0').len().max(forced)
}

/// Sign, whole digits without zeros in front, and exactly so many decimals, rounded half away from zero.
fn rounded(number: &str, decimals: usize) -> (bool, String, String) {
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let round_up = fraction
        .as_bytes()
        .get(decimals)
        .is_some_and(|d| *d >= b'5');
    let mut digits: Vec<u8> = whole.bytes().collect();
    digits.extend(
        fraction
            .bytes()
            .chain(std::iter::repeat(b'0'))
            .take(decimals),
    );
    if round_up {
        let mut at = digits.len();
        loop {
            if at == 0 {
                digits.insert(0, b'1');
                break;
            }
            at -= 1;
            if digits[at] == b'9' {
                digits[at] = b'0';
            } else {
                digits[at] += 1;
                break;
            }
        }
    }
    let split = digits.len() - decimals;
    let text = |bytes: &[u8]| bytes.iter().map(|b| char::from(*b)).collect::<String>();
    let whole = text(&digits[..split]);
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    (negative, whole.to_owned(), text(&digits[split..]))
}

fn ordinal(whole: &str, upper: bool) -> &'static str {
    let bytes = whole.as_bytes();
    let teen = bytes.len() > 1 && bytes[bytes.len() - 2] == b'1';
    let lower = match bytes.last() {
        Some(b'1') if !teen => ["st", "ST"],
        Some(b'2') if !teen => ["nd", "ND"],
        Some(b'3') if !teen => ["rd", "RD"],
        _ => ["th", "TH"],
    };
    lower[usize::from(upper)]
}

fn roman(number: &str, upper: bool, fill: bool) -> String {
    const NUMERALS: [(i64, &str); 13] = [
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ];
    let (negative, whole, _) = rounded(number, 0);
    let value: i64 = whole.parse().unwrap_or(0);
    if negative || !(1..4000).contains(&value) {
        return "#".repeat(15);
    }
    let mut left = value;
    let mut text = String::new();
    for (worth, numeral) in NUMERALS {
        while left >= worth {
            text.push_str(numeral);
            left -= worth;
        }
    }
    let text = if upper { text } else { text.to_lowercase() };
    if fill { format!("{text:>15}") } else { text }
}
