//! Timestamps of streams: nearly always ISO 8601 of one shape, which is read here without ceremony, or milliseconds since
//! 1970. Anything else is left to Postgres's rules.

use tidegate_types::text::{Value, days_from_civil, parse_text};
use tidegate_types::{SqlError, SqlState, SqlType};

const US_PER_SECOND: i64 = 1_000_000;

/// Microseconds since 1970 of a text.
pub(crate) fn parse(text: &str, sql_type: &SqlType) -> Result<i64, SqlError> {
    if let Some(us) = iso(text.as_bytes()) {
        return Ok(us);
    }
    if let [b'-' | b'0'..=b'9', rest @ ..] = text.as_bytes()
        && rest.iter().all(u8::is_ascii_digit)
    {
        return from_ms(text, sql_type);
    }
    match parse_text(text, sql_type)? {
        Value::Timestamp(us) => Ok(us),
        other => unreachable!("{other:?} is not a timestamp"),
    }
}

/// Microseconds since 1970 of a number of milliseconds, which may have a fraction.
pub(crate) fn from_ms(number: &str, sql_type: &SqlType) -> Result<i64, SqlError> {
    let us = match number.parse::<i64>() {
        Ok(ms) => ms.checked_mul(1000),
        Err(_) => match parse_text(
            number,
            &SqlType::Numeric {
                precision: 38,
                scale: 3,
            },
        ) {
            Ok(Value::Numeric(us)) => i64::try_from(us).ok(),
            _ => None,
        },
    };
    us.ok_or_else(|| {
        let message = format!("{sql_type} out of range: \"{number}\" milliseconds");
        SqlError::new(SqlState::DATETIME_OVERFLOW, message)
    })
}

/// `YYYY-MM-DD[T ]HH:MM:SS[.f…][Z]` with up to six decimals. Whether the type has a time zone makes no difference.
#[inline]
fn iso(text: &[u8]) -> Option<i64> {
    let (fixed, rest) = text.split_first_chunk::<19>()?;
    let separators = [fixed[4], fixed[7], fixed[13], fixed[16]];
    if separators != [b'-', b'-', b':', b':'] || !matches!(fixed[10], b'T' | b' ') {
        return None;
    }
    let two = |at: usize| -> Option<i64> {
        let (tens, ones) = (
            fixed[at].wrapping_sub(b'0'),
            fixed[at + 1].wrapping_sub(b'0'),
        );
        (tens < 10 && ones < 10).then_some(i64::from(tens) * 10 + i64::from(ones))
    };
    let year = two(0)? * 100 + two(2)?;
    let (month, day) = (two(5)?, two(8)?);
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    // Leap days and the year zero are for the general reader.
    let days_of_month =
        [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].get((month - 1) as usize)?;
    if day == 0 || day > *days_of_month || year == 0 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction_us, rest) = match rest {
        [b'.', digits @ ..] => fraction(digits)?,
        _ => (0, rest),
    };
    if !matches!(rest, [] | [b'Z']) {
        return None;
    }
    let days = days_from_civil(year, month as u32, day as u32);
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * US_PER_SECOND + fraction_us)
}

fn fraction(digits: &[u8]) -> Option<(i64, &[u8])> {
    let count = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    if !(1..=6).contains(&count) {
        return None;
    }
    let value = digits[..count]
        .iter()
        .fold(0, |value, b| value * 10 + i64::from(b - b'0'));
    Some((value * 10i64.pow(6 - count as u32), &digits[count..]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The short way and Postgres's rules agree.
    #[test]
    fn the_usual_shape_means_what_postgres_says() {
        for text in [
            "2015-07-15T00:00:00",
            "2015-07-15 23:59:59.999999",
            "1969-12-31T23:59:59.5Z",
            "0001-01-01T00:00:00",
            "9999-12-28 12:34:56.000001Z",
            "2000-02-28T01:02:03.04",
        ] {
            let us = iso(text.as_bytes()).unwrap();
            for sql_type in [SqlType::Timestamp, SqlType::TimestampTz] {
                assert_eq!(
                    parse_text(text, &sql_type).unwrap(),
                    Value::Timestamp(us),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn other_shapes_are_left_to_postgres() {
        let parse = |text| parse(text, &SqlType::TimestampTz);
        assert_eq!(
            parse("2024-02-29T00:00:00Z").unwrap(),
            1_709_164_800_000_000
        );
        assert_eq!(
            parse("2024-01-01T02:00:00+02").unwrap(),
            1_704_067_200_000_000
        );
        assert_eq!(
            parse("2023-02-29 00:00:00").unwrap_err().state,
            SqlState::DATETIME_OVERFLOW
        );
        assert_eq!(
            parse("gibberish").unwrap_err().state,
            SqlState::INVALID_DATETIME
        );
        assert_eq!(parse("2024-01-01").unwrap(), 1_704_067_200_000_000);
    }

    #[test]
    fn whole_numbers_are_milliseconds() {
        assert_eq!(
            parse("1436918400123", &SqlType::Timestamp).unwrap(),
            1_436_918_400_123_000
        );
        assert_eq!(parse("-5", &SqlType::Timestamp).unwrap(), -5_000);
        assert_eq!(from_ms("1.5", &SqlType::Timestamp).unwrap(), 1_500);
        assert!(from_ms("9223372036854775807", &SqlType::Timestamp).is_err());
    }
}
