//! How one column's values are made.

use crate::ConnectorError;
use crate::options::Options;
use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanArray, Decimal128Array, FixedSizeBinaryBuilder, ListArray,
    PrimitiveArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Field, FieldRef, Float32Type, Float64Type, Int16Type,
    Int32Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType,
};
use std::sync::Arc;
use tidegate_types::text::{Value, canonical_jsonb, parse_text};
use tidegate_types::{SqlError, SqlState, SqlType};

pub const OPTIONS: [&str; 8] = [
    "kind", "start", "end", "step", "min", "max", "length", "seed",
];

const US_PER_DAY: i128 = 86_400_000_000;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A column and where its values come from.
pub struct ColumnSpec {
    field: FieldRef,
    seed: u64,
    make: Make,
}

enum Make {
    /// Everything that is a count of something: integers, numerics, days, microseconds.
    Whole(Whole),
    Float(Float),
    Boolean,
    /// The text of a sequence's numbers.
    Numbered(Whole),
    Text(usize),
    Bytea(usize),
    Uuid,
    Jsonb,
    Array(usize, Box<ColumnSpec>),
}

enum Whole {
    Sequence {
        start: i128,
        step: i128,
        rows: Option<u64>,
    },
    /// One of `count` values from `min` on; `count` is at most 2⁶⁴.
    Random { min: i128, count: u128 },
}

enum Float {
    Sequence {
        start: f64,
        step: f64,
        rows: Option<u64>,
    },
    Random {
        min: f64,
        max: f64,
    },
}

/// The options of one column.
struct Settings<'a> {
    options: &'a Options<'a>,
    column: &'a str,
}

impl<'a> Settings<'a> {
    fn name(&self, option: &str) -> String {
        format!("fields.{}.{option}", self.column)
    }

    fn text(&self, option: &str) -> Option<&'a str> {
        self.options.text(&self.name(option))
    }

    fn is_sequence(&self) -> Result<bool, ConnectorError> {
        match self.text("kind").map(str::to_ascii_lowercase).as_deref() {
            None | Some("random") => Ok(false),
            Some("sequence") => Ok(true),
            Some(_) => Err(self.options.wrong(&self.name("kind"), "sequence or random")),
        }
    }

    /// Options of the other kind, or that the type has no use for, are not passed over.
    fn only(&self, used: &[&str]) -> Result<(), ConnectorError> {
        let unused = OPTIONS.iter().find(|option| {
            !used.contains(option)
                && **option != "kind"
                && **option != "seed"
                && self.text(option).is_some()
        });
        match unused {
            None => Ok(()),
            Some(option) => Err(ConnectorError::invalid(format!(
                "option \"{}\" has no meaning for this column",
                self.name(option)
            ))
            .with_hint(format!("what has: kind, seed, {}", used.join(", ")))),
        }
    }

    fn parsed<T>(
        &self,
        option: &str,
        default: T,
        parse: impl Fn(&str) -> Result<T, SqlError>,
    ) -> Result<T, ConnectorError> {
        match self.text(option) {
            None => Ok(default),
            Some(text) => {
                parse(text).map_err(|error| self.options.wrong(&self.name(option), &error.message))
            }
        }
    }

    fn length(&self, default: usize, most: usize) -> Result<usize, ConnectorError> {
        self.only(&["length"])?;
        let length = self.options.number(&self.name("length"), 0..=most)?;
        Ok(length.unwrap_or(default.min(most)))
    }
}

impl ColumnSpec {
    pub fn new(field: &FieldRef, options: &Options<'_>, seed: u64) -> Result<Self, ConnectorError> {
        let settings = Settings {
            options,
            column: field.name(),
        };
        let own = options.number(&settings.name("seed"), 0..=u64::MAX)?;
        let derived = || {
            field
                .name()
                .bytes()
                .fold(mix(seed), |hash, byte| mix(hash ^ u64::from(byte)))
        };
        Self::of(field, &settings, own.map_or_else(derived, mix))
    }

    fn of(field: &FieldRef, settings: &Settings<'_>, seed: u64) -> Result<Self, ConnectorError> {
        let sql_type = SqlType::from_field(field);
        let sequence = settings.is_sequence()?;
        let make = match &sql_type {
            SqlType::Real | SqlType::Double => Make::Float(float(settings, &sql_type)?),
            SqlType::Text | SqlType::Varchar { .. } if sequence => {
                Make::Numbered(whole(settings, &SqlType::BigInt)?)
            }
            SqlType::SmallInt
            | SqlType::Integer
            | SqlType::BigInt
            | SqlType::Numeric { .. }
            | SqlType::Date
            | SqlType::Time
            | SqlType::Timestamp
            | SqlType::TimestampTz
            | SqlType::Interval => Make::Whole(whole(settings, &sql_type)?),
            other if sequence => {
                let name = settings.name("kind");
                return Err(settings
                    .options
                    .wrong(&name, &format!("random for type {other}")));
            }
            SqlType::Boolean => {
                settings.only(&[])?;
                Make::Boolean
            }
            SqlType::Text => Make::Text(settings.length(10, 1 << 20)?),
            SqlType::Varchar { length } | SqlType::Char { length } => {
                Make::Text(settings.length(10, *length as usize)?)
            }
            SqlType::Bytea => Make::Bytea(settings.length(10, 1 << 20)?),
            SqlType::Uuid => {
                settings.only(&[])?;
                Make::Uuid
            }
            SqlType::Jsonb => {
                settings.only(&[])?;
                Make::Jsonb
            }
            SqlType::Array(_) => array(field, settings, seed)?,
            SqlType::Record(_) | SqlType::Other(_) => {
                return Err(ConnectorError::not_supported(format!(
                    "a datagen column of type {sql_type} (column \"{}\")",
                    field.name()
                )));
            }
        };
        Ok(Self {
            field: field.clone(),
            seed,
            make,
        })
    }

    /// After how many rows this column ends the source.
    pub fn rows(&self) -> Option<u64> {
        match &self.make {
            Make::Whole(Whole::Sequence { rows, .. })
            | Make::Numbered(Whole::Sequence { rows, .. })
            | Make::Float(Float::Sequence { rows, .. }) => *rows,
            _ => None,
        }
    }

    /// The values of the rows with these numbers.
    pub fn array(&self, numbers: &[u64]) -> ArrayRef {
        let hashes = || numbers.iter().map(|n| mix(self.seed ^ mix(*n)));
        match &self.make {
            Make::Whole(whole) => self.whole_array(whole, numbers),
            Make::Float(float) => match self.field.data_type() {
                DataType::Float32 => {
                    let values = numbers.iter().map(|n| float.value(self.seed, *n) as f32);
                    Arc::new(PrimitiveArray::<Float32Type>::from_iter_values(values))
                }
                _ => {
                    let values = numbers.iter().map(|n| float.value(self.seed, *n));
                    Arc::new(PrimitiveArray::<Float64Type>::from_iter_values(values))
                }
            },
            Make::Boolean => Arc::new(BooleanArray::from_iter(
                hashes().map(|h| Some(h >> 63 == 1)),
            )),
            Make::Numbered(whole) => {
                let mut builder = StringBuilder::with_capacity(numbers.len(), numbers.len() * 8);
                for number in numbers {
                    builder.append_value(whole.value(self.seed, *number).to_string());
                }
                Arc::new(builder.finish())
            }
            Make::Text(length) => {
                let mut builder =
                    StringBuilder::with_capacity(numbers.len(), numbers.len() * length);
                let mut text = String::with_capacity(*length);
                for hash in hashes() {
                    text.clear();
                    text.extend(
                        random_bytes(hash)
                            .take(*length)
                            .map(|b| char::from(ALPHABET[usize::from(b & 31)])),
                    );
                    builder.append_value(&text);
                }
                Arc::new(builder.finish())
            }
            Make::Bytea(length) => {
                let mut builder =
                    BinaryBuilder::with_capacity(numbers.len(), numbers.len() * length);
                for hash in hashes() {
                    builder.append_value(random_bytes(hash).take(*length).collect::<Vec<_>>());
                }
                Arc::new(builder.finish())
            }
            Make::Uuid => {
                let mut builder = FixedSizeBinaryBuilder::with_capacity(numbers.len(), 16);
                for hash in hashes() {
                    builder
                        .append_value(random_uuid(hash))
                        .expect("sixteen bytes");
                }
                Arc::new(builder.finish())
            }
            Make::Jsonb => {
                let mut builder = StringBuilder::with_capacity(numbers.len(), numbers.len() * 32);
                for hash in hashes() {
                    let text = format!("{{\"n\":{},\"even\":{}}}", hash % 1000, hash % 2 == 0);
                    builder.append_value(canonical_jsonb(&text).expect("written as JSON"));
                }
                Arc::new(builder.finish())
            }
            Make::Array(length, element) => {
                let length = *length as u64;
                let inner = numbers
                    .iter()
                    .flat_map(|n| (0..length).map(move |k| n.wrapping_mul(length).wrapping_add(k)));
                let values = element.array(&inner.collect::<Vec<_>>());
                let offsets = OffsetBuffer::from_repeated_length(length as usize, numbers.len());
                Arc::new(ListArray::new(element.field.clone(), offsets, values, None))
            }
        }
    }

    fn whole_array(&self, whole: &Whole, numbers: &[u64]) -> ArrayRef {
        let values = numbers.iter().map(|n| whole.value(self.seed, *n));
        match self.field.data_type() {
            DataType::Int16 => primitive::<Int16Type>(values.map(|v| v as i16)),
            DataType::Int32 => primitive::<Int32Type>(values.map(|v| v as i32)),
            DataType::Int64 => primitive::<Int64Type>(values.map(|v| v as i64)),
            DataType::Date32 => primitive::<Date32Type>(values.map(|v| v as i32)),
            DataType::Time64(_) => primitive::<Time64MicrosecondType>(values.map(|v| v as i64)),
            DataType::Timestamp(_, zone) => {
                let array = TimestampMicrosecondArray::from_iter_values(values.map(|v| v as i64));
                Arc::new(array.with_timezone_opt(zone.clone()))
            }
            DataType::Interval(_) => primitive::<IntervalMonthDayNanoType>(
                values.map(|us| IntervalMonthDayNano::new(0, 0, us as i64 * 1000)),
            ),
            DataType::Decimal128(precision, scale) => Arc::new(
                Decimal128Array::from_iter_values(values)
                    .with_precision_and_scale(*precision, *scale)
                    .expect("the schema has a valid precision and scale"),
            ),
            other => unreachable!("{other} is not a count of anything"),
        }
    }
}

fn primitive<T: ArrowPrimitiveType>(values: impl Iterator<Item = T::Native>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::from_iter_values(values))
}

impl Whole {
    #[inline(always)]
    fn value(&self, seed: u64, number: u64) -> i128 {
        match self {
            Whole::Sequence { start, step, .. } => start + step * i128::from(number),
            Whole::Random { min, count } => {
                let hash = u128::from(mix(seed ^ mix(number)));
                min + ((hash * count) >> 64) as i128
            }
        }
    }
}

impl Float {
    fn value(&self, seed: u64, number: u64) -> f64 {
        match self {
            Float::Sequence { start, step, .. } => start + step * number as f64,
            Float::Random { min, max } => {
                let unit = (mix(seed ^ mix(number)) >> 11) as f64 / (1u64 << 53) as f64;
                min + (max - min) * unit
            }
        }
    }
}

/// A value of a counted type as its count. Intervals are generated from times alone, in which a day has 24 hours.
fn count_of(text: &str, sql_type: &SqlType) -> Result<i128, SqlError> {
    Ok(match parse_text(text, sql_type)? {
        Value::SmallInt(value) => value.into(),
        Value::Integer(value) | Value::Date(value) => value.into(),
        Value::BigInt(value) | Value::Time(value) | Value::Timestamp(value) => value.into(),
        Value::Numeric(value) => value,
        Value::Interval(value) if value.months == 0 => {
            i128::from(value.days) * US_PER_DAY + i128::from(value.nanos / 1000)
        }
        _ => return Err(out_of_range(text, sql_type)),
    })
}

fn out_of_range(text: &str, sql_type: &SqlType) -> SqlError {
    SqlError::new(
        SqlState::NUMERIC_OUT_OF_RANGE,
        format!("value \"{text}\" is out of range for type {sql_type}"),
    )
}

fn double(text: &str, sql_type: &SqlType) -> Result<f64, SqlError> {
    match parse_text(text, sql_type)? {
        Value::Real(value) if value.is_finite() => Ok(value.into()),
        Value::Double(value) if value.is_finite() => Ok(value),
        _ => Err(out_of_range(text, sql_type)),
    }
}

/// The counts that a type can hold, the range of its random values by default, and the step of a sequence.
struct Domain {
    least: i128,
    most: i128,
    default: (i128, i128),
    step: i128,
}

fn domain(sql_type: &SqlType) -> Domain {
    let of = |least: i128, most: i128, default: (i128, i128), step: i128| Domain {
        least,
        most,
        default,
        step,
    };
    let integers = |least: i64, most: i64| {
        let (least, most) = (i128::from(least), i128::from(most));
        of(least, most, (least, most), 1)
    };
    // 1970-01-01 to 2100-01-01, in days.
    let days = (0, 47_482);
    let (least_us, most_us) = (i128::from(i64::MIN / 2), i128::from(i64::MAX / 2));
    match sql_type {
        SqlType::SmallInt => integers(i64::from(i16::MIN), i64::from(i16::MAX)),
        SqlType::Integer => integers(i64::from(i32::MIN), i64::from(i32::MAX)),
        SqlType::Numeric { precision, scale } => {
            let most = 10i128.pow(u32::from(*precision)) - 1;
            let one = 10i128.pow(u32::from(scale.max(&0).unsigned_abs()));
            of(-most, most, (0, most.min(1000 * one)), one)
        }
        SqlType::Date => of(days.0 - 2_000_000, 2_000_000, days, 1),
        SqlType::Time => of(0, US_PER_DAY - 1, (0, US_PER_DAY - 1), 1_000_000),
        SqlType::Timestamp | SqlType::TimestampTz => of(
            least_us,
            most_us,
            (days.0 * US_PER_DAY, days.1 * US_PER_DAY),
            1_000_000,
        ),
        SqlType::Interval => of(least_us, most_us, (0, US_PER_DAY), 1_000_000),
        _ => integers(i64::MIN, i64::MAX),
    }
}

fn whole(settings: &Settings<'_>, sql_type: &SqlType) -> Result<Whole, ConnectorError> {
    let domain = domain(sql_type);
    let parse = |text: &str| match count_of(text, sql_type)? {
        value if (domain.least..=domain.most).contains(&value) => Ok(value),
        _ => Err(out_of_range(text, sql_type)),
    };
    if !settings.is_sequence()? {
        settings.only(&["min", "max"])?;
        let (min, max) = (
            settings.parsed("min", domain.default.0, parse)?,
            settings.parsed("max", domain.default.1, parse)?,
        );
        let count = u128::try_from(max - min).map(|span| span + 1);
        return match count {
            Ok(count) if count <= 1 << 64 => Ok(Whole::Random { min, count }),
            _ => Err(settings.options.wrong(
                &settings.name("max"),
                "a value from min on, with at most 2^64 values between them",
            )),
        };
    }
    settings.only(&["start", "end", "step"])?;
    let start = settings.parsed("start", domain.default.0.max(0), parse)?;
    let step = settings.parsed("step", domain.step, |text| match sql_type {
        SqlType::Date => count_of(text, &SqlType::Integer),
        SqlType::Time | SqlType::Timestamp | SqlType::TimestampTz => {
            count_of(text, &SqlType::Interval)
        }
        _ => parse(text),
    })?;
    if step == 0 {
        return Err(settings
            .options
            .wrong(&settings.name("step"), "a step other than zero"));
    }
    // A sequence without an end stops where its type does.
    let last = if step > 0 { domain.most } else { domain.least };
    let end = settings.parsed("end", last, parse)?;
    let steps = (end - start) / step;
    if (end - start).signum() * step.signum() < 0 {
        return Err(settings
            .options
            .wrong(&settings.name("end"), "a value that the sequence reaches"));
    }
    Ok(Whole::Sequence {
        start,
        step,
        rows: sequence_rows(settings, steps),
    })
}

/// A limit that the type sets ends the source only where it is within reach.
fn sequence_rows(settings: &Settings<'_>, steps: i128) -> Option<u64> {
    let rows = u64::try_from(steps + 1).unwrap_or(u64::MAX);
    (settings.text("end").is_some() || rows < 1 << 40).then_some(rows)
}

fn float(settings: &Settings<'_>, sql_type: &SqlType) -> Result<Float, ConnectorError> {
    let parse = |text: &str| double(text, sql_type);
    if !settings.is_sequence()? {
        settings.only(&["min", "max"])?;
        let (min, max) = (
            settings.parsed("min", 0.0, parse)?,
            settings.parsed("max", 1.0, parse)?,
        );
        return match min <= max {
            true => Ok(Float::Random { min, max }),
            false => Err(settings
                .options
                .wrong(&settings.name("max"), "a value from min on")),
        };
    }
    settings.only(&["start", "end", "step"])?;
    let start = settings.parsed("start", 0.0, parse)?;
    let step = settings.parsed("step", 1.0, parse)?;
    let end = settings.parsed("end", f64::INFINITY * step.signum(), parse)?;
    let steps = (end - start) / step;
    if step == 0.0 || steps < 0.0 {
        return Err(settings
            .options
            .wrong(&settings.name("end"), "a value that the sequence reaches"));
    }
    let rows = steps
        .is_finite()
        .then(|| (steps.floor() as u64).saturating_add(1));
    Ok(Float::Sequence { start, step, rows })
}

/// An array of random elements; `min` and `max` are those of an element.
fn array(field: &Field, settings: &Settings<'_>, seed: u64) -> Result<Make, ConnectorError> {
    let DataType::List(element) = field.data_type() else {
        unreachable!("an array is kept as a list");
    };
    let length = settings
        .options
        .number(&settings.name("length"), 0..=10_000)?
        .unwrap_or(3);
    // `length` is the array's; its elements have the default length, the column's name and its range.
    let inner = Settings {
        options: &without_length(settings),
        column: settings.column,
    };
    let spec = ColumnSpec::of(element, &inner, mix(seed))?;
    match spec.make {
        Make::Array(..) => Err(ConnectorError::not_supported(
            "arrays of more than one dimension",
        )),
        _ => Ok(Make::Array(length, Box::new(spec))),
    }
}

fn without_length<'a>(settings: &Settings<'a>) -> Options<'a> {
    settings.options.without(&settings.name("length"))
}

fn mix(z: u64) -> u64 {
    let mut z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn random_bytes(seed: u64) -> impl Iterator<Item = u8> {
    (0..).flat_map(move |word: u64| mix(seed ^ mix(word)).to_le_bytes())
}

/// With the version and variant bits of a random one.
fn random_uuid(seed: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (byte, random) in bytes.iter_mut().zip(random_bytes(seed)) {
        *byte = random;
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}
