//! Random scalar expressions and predicates.

use crate::generate::Type::*;
use crate::generate::{Generator, Scope, Type};

impl Generator {
    pub fn scalar(&mut self, scope: &Scope, of: Type, depth: usize) -> String {
        if depth == 0 || self.chance(35) {
            return self.leaf(scope, of);
        }
        let d = depth - 1;
        match self.below(14) {
            0 => {
                let condition = self.scalar(scope, Bool, d);
                let (a, b) = (self.scalar(scope, of, d), self.scalar(scope, of, d));
                return format!("CASE WHEN {condition} THEN {a} ELSE {b} END");
            }
            1 => {
                let (a, b) = (self.scalar(scope, of, d), self.scalar(scope, of, d));
                return format!("coalesce({a}, {b})");
            }
            2 => {
                let (a, b) = (self.scalar(scope, of, d), self.leaf(scope, of));
                return format!("nullif({a}, {b})");
            }
            3 if of.is_ordered() => {
                let f = self.pick(&["greatest", "least"]);
                let (a, b) = (self.scalar(scope, of, d), self.scalar(scope, of, d));
                return format!("{f}({a}, {b})");
            }
            4 => {
                let (case, when) = (self.leaf(scope, Int), self.literal(Int));
                let (a, b) = (self.leaf(scope, of), self.scalar(scope, of, d));
                return format!("CASE {case} WHEN {when} THEN {a} ELSE {b} END");
            }
            _ => {}
        }
        match of {
            Small => format!("({} % 100)::smallint", self.scalar(scope, Int, d)),
            Int => self.integer(scope, d),
            BigInt => match self.below(4) {
                0 => format!("({})::bigint", self.scalar(scope, Int, d)),
                1 => self.two("({a} + {b})", scope, BigInt, BigInt, d),
                2 => self.two("({a} - {b})", scope, BigInt, Int, d),
                _ => format!("abs({})", self.scalar(scope, BigInt, d)),
            },
            Numeric | Approximate => self.numeric(scope, d),
            Text | Other => self.text(scope, d),
            Bool => self.predicate(scope, d),
            Date | Time | Timestamp | Zoned | Interval => self.temporal(scope, of, d),
            Real => match self.below(3) {
                0 => self.two("({a} + {b})", scope, Real, Real, d),
                1 => format!("({})::real", self.scalar(scope, Int, d)),
                _ => format!("abs({})", self.leaf(scope, Real)),
            },
            Double => self.double(scope, d),
            Uuid => self.leaf(scope, Uuid),
            Bytes => match self.below(2) {
                0 => self.two("({a} || {b})", scope, Bytes, Bytes, d),
                _ => self.leaf(scope, Bytes),
            },
            Json => match self.below(4) {
                0 => format!("({} -> 'a')", self.leaf(scope, Json)),
                1 => format!("({} -> 'b' -> 0)", self.leaf(scope, Json)),
                2 => format!("({} -> 1)", self.leaf(scope, Json)),
                _ => self.leaf(scope, Json),
            },
            Ints => self.list(scope, Ints, Int, d),
            Texts => self.list(scope, Texts, Text, d),
        }
    }

    /// A form whose `{a}` is any expression and `{b}` a column or a constant.
    fn two(&mut self, form: &str, scope: &Scope, a: Type, b: Type, d: usize) -> String {
        let (a, b) = (self.scalar(scope, a, d), self.leaf(scope, b));
        form.replace("{a}", &a).replace("{b}", &b)
    }

    fn list(&mut self, scope: &Scope, of: Type, item: Type, d: usize) -> String {
        match self.below(4) {
            0 => self.two("array_append({a}, {b})", scope, of, item, d),
            1 => self.two("({a} || {b})", scope, of, of, d),
            2 => self.two("ARRAY[{a}, {b}]", scope, item, item, d),
            _ => self.leaf(scope, of),
        }
    }

    fn numeric(&mut self, scope: &Scope, d: usize) -> String {
        match self.below(7) {
            0 => self.two("({a} - {b})", scope, Numeric, Numeric, d),
            1 => format!("({})::numeric(10,2)", self.scalar(scope, Int, d)),
            2 => format!("abs({})", self.scalar(scope, Numeric, d)),
            3 => self.two("({a} * {b})::numeric(10,2)", scope, Numeric, Numeric, 0),
            4 => self.two("({a} + {b})", scope, Numeric, Int, d),
            5 => self.two(
                "({a} / nullif({b}, 0))::numeric(10,2)",
                scope,
                Numeric,
                Numeric,
                0,
            ),
            _ => format!("(-{})", self.leaf(scope, Numeric)),
        }
    }

    fn double(&mut self, scope: &Scope, d: usize) -> String {
        match self.below(7) {
            0 => {
                let op = self.pick(&["+", "-", "*"]);
                self.two(&format!("({{a}} {op} {{b}})"), scope, Double, Double, d)
            }
            1 => format!("({})::double precision", self.scalar(scope, Int, d)),
            2 => {
                let f = self.pick(&["abs", "floor", "ceil", "round", "sign", "trunc"]);
                format!("{f}({})", self.scalar(scope, Double, d))
            }
            3 => format!("sqrt(abs({}))", self.leaf(scope, Double)),
            4 => format!("({})::double precision", self.leaf(scope, Numeric)),
            5 => format!("power({}, 2)", self.leaf(scope, Double)),
            _ => self.two("({a} / nullif({b}, 0))", scope, Double, Double, 0),
        }
    }

    fn temporal(&mut self, scope: &Scope, of: Type, d: usize) -> String {
        let step = self.pick(&["1 day", "90 minutes", "1 month", "-3 hours"]);
        let unit = self.pick(&["day", "hour", "month", "year", "minute", "week", "quarter"]);
        match (of, self.below(4)) {
            (Date, 0) => self.two("({a} + {b})", scope, Date, Int, 0),
            (Date, 1) => format!("({})::date", self.leaf(scope, Timestamp)),
            (Date, 2) => format!("({})::date", self.leaf(scope, Zoned)),
            (Time, 0) => format!("({})::time", self.leaf(scope, Timestamp)),
            (Timestamp, 0) => {
                format!("date_trunc('{unit}', {})", self.scalar(scope, Timestamp, d))
            }
            (Timestamp, 1) => {
                format!("({} + interval '{step}')", self.scalar(scope, Timestamp, d))
            }
            (Timestamp, 2) => format!("({})::timestamp", self.leaf(scope, Date)),
            (Timestamp, _) => format!("({} - {})", self.leaf(scope, Timestamp), {
                self.leaf(scope, Interval)
            }),
            (Zoned, 0) => format!("date_trunc('{unit}', {})", self.leaf(scope, Zoned)),
            (Zoned, 1) => format!("({} + interval '{step}')", self.scalar(scope, Zoned, d)),
            (Zoned, 2) => format!("({})::timestamptz", self.leaf(scope, Timestamp)),
            (Interval, 0) => self.two("({a} - {b})", scope, Timestamp, Timestamp, 0),
            _ => self.leaf(scope, of),
        }
    }

    fn integer(&mut self, scope: &Scope, d: usize) -> String {
        match self.below(16) {
            0 => self.two("({a} + {b})", scope, Int, Int, d),
            1 => self.two("({a} - {b})", scope, Int, Int, d),
            2 => self.two("({a} * {b})", scope, Int, Int, 0),
            3 => self.two("({a} / nullif({b}, 0))", scope, Int, Int, d),
            4 => self.two("({a} % nullif({b}, 0))", scope, Int, Int, d),
            5 => format!("abs({})", self.scalar(scope, Int, d)),
            6 => format!("length({})", self.scalar(scope, Text, d)),
            7 => {
                let part = self.pick(&["year", "month", "day", "dow", "doy", "quarter", "week"]);
                format!("extract({part} from {})::integer", self.leaf(scope, Date))
            }
            8 => {
                let part = self.pick(&["hour", "minute", "second", "isodow", "year"]);
                let of = [Timestamp, Zoned][self.below(2)];
                format!("extract({part} from {})::integer", self.leaf(scope, of))
            }
            9 => format!("({})::integer", self.leaf(scope, Numeric)),
            10 => format!("({})::integer", self.leaf(scope, Small)),
            11 => self.two("({a} - {b})", scope, Date, Date, 0),
            12 => format!("cardinality({})", self.leaf(scope, Ints)),
            13 => format!("({})[{}]", self.leaf(scope, Ints), 1 + self.below(2)),
            14 => format!("({})::integer", self.leaf(scope, Bool)),
            _ => format!("strpos({}, 'a')", self.scalar(scope, Text, d)),
        }
    }

    fn text(&mut self, scope: &Scope, d: usize) -> String {
        let a = self.scalar(scope, Text, d);
        match self.below(22) {
            0 => format!("({a} || {})", self.leaf(scope, Text)),
            1 => {
                let f = self.pick(&["upper", "lower", "reverse", "initcap", "md5"]);
                format!("{f}({a})")
            }
            2 => format!("({a} || {})", self.leaf(scope, Int)),
            3 => format!("substr({a}, {}, 2)", 1 + self.below(2)),
            4 => format!("replace({a}, 'a', 'bb')"),
            5 => {
                let f = self.pick(&["left", "right"]);
                format!("{f}({a}, {})", self.below(5) as i64 - 2)
            }
            6 => format!("({})::text", self.scalar(scope, Int, d)),
            7 => {
                let of = [Date, Time, Timestamp, Zoned, Interval, Uuid, Bytes][self.below(7)];
                format!("({})::text", self.scalar(scope, of, d))
            }
            8 => format!("concat({a}, '-', {})", self.leaf(scope, Int)),
            9 => format!("concat_ws('/', {a}, {})", self.leaf(scope, Text)),
            10 => {
                let f = self.pick(&["lpad", "rpad"]);
                format!("{f}({a}, 3, '*')")
            }
            11 => format!("({})::text", self.leaf(scope, Numeric)),
            12 => {
                let of = [Timestamp, Zoned][self.below(2)];
                let form = self.pick(&["YYYY-MM", "DD.MM.YYYY HH24:MI:SS", "Dy, Mon FMDD"]);
                format!("to_char({}, '{form}')", self.leaf(scope, of))
            }
            13 => format!("translate({a}, 'ab', 'x')"),
            14 => format!("split_part({a}, 'b', 1)"),
            15 => format!("({} ->> 'a')", self.leaf(scope, Json)),
            16 => format!("({} -> 'b' ->> 0)", self.leaf(scope, Json)),
            17 => format!("({})[1]", self.leaf(scope, Texts)),
            18 => format!("array_to_string({}, '+')", self.leaf(scope, Ints)),
            19 => format!("encode({}, 'hex')", self.leaf(scope, Bytes)),
            20 => {
                let of = [Json, Ints, Texts, Bool, Small][self.below(5)];
                format!("({})::text", self.leaf(scope, of))
            }
            _ => {
                let f = self.pick(&["btrim", "ltrim", "rtrim"]);
                format!("{f}({a}, ' a')")
            }
        }
    }

    pub fn predicate(&mut self, scope: &Scope, depth: usize) -> String {
        let d = depth.saturating_sub(1);
        let of = self.comparable(scope);
        match self.below(15) {
            n @ (0 | 1) if depth > 0 => {
                let op = ["AND", "OR"][n];
                let (a, b) = (self.predicate(scope, d), self.predicate(scope, d));
                format!("({a} {op} {b})")
            }
            2 if depth > 0 => format!("(NOT {})", self.predicate(scope, d)),
            3 => {
                let of = self.equatable(scope);
                let not = self.pick(&["", "NOT "]);
                format!("({} IS {not}NULL)", self.leaf(scope, of))
            }
            4 => {
                let not = self.pick(&["", "NOT "]);
                let (low, high) = (self.literal(of), self.literal(of));
                format!("({} {not}BETWEEN {low} AND {high})", self.leaf(scope, of))
            }
            5 => {
                let not = self.pick(&["", "NOT "]);
                let (one, other) = (self.literal(of), self.value(of));
                format!("({} {not}IN ({one}, {other}))", self.leaf(scope, of))
            }
            6 => {
                let op = self.pick(&["LIKE", "NOT LIKE", "ILIKE"]);
                let pattern = self.pick(&["a%", "%b%", "_", "%e_"]);
                format!("({} {op} '{pattern}')", self.leaf(scope, Text))
            }
            7 => {
                let of = self.equatable(scope);
                let not = self.pick(&["", "NOT "]);
                let (a, b) = (self.leaf(scope, of), self.leaf(scope, of));
                format!("({a} IS {not}DISTINCT FROM {b})")
            }
            8 => self.leaf(scope, Bool),
            9 => {
                let of = self.equatable(scope);
                let op = self.pick(&["=", "<>"]);
                let (a, b) = (self.scalar(scope, of, d), self.leaf(scope, of));
                format!("({a} {op} {b})")
            }
            10 => {
                let is = self.pick(&["IS TRUE", "IS NOT TRUE", "IS FALSE", "IS UNKNOWN"]);
                format!("({} {is})", self.predicate(scope, d))
            }
            _ => {
                let op = self.pick(&["=", "<>", "<", "<=", ">", ">="]);
                let (a, b) = (self.scalar(scope, of, d), self.leaf(scope, of));
                format!("({a} {op} {b})")
            }
        }
    }
}
