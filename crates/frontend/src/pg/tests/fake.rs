//! A database that answers a handful of statements, so that the wire can be tested alone. It writes down what the
//! frontend asks of it.

use arrow::array::{ArrayRef, Int32Array, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_engine::api::*;
use tidegate_types::text::{ValueAppender, parse_text};
use tidegate_types::{SqlError, SqlState, SqlType};

#[derive(Default)]
pub(super) struct Fake {
    pub log: Arc<Mutex<Vec<String>>>,
    /// Batches that streams were asked for.
    pub polled: Arc<AtomicUsize>,
    /// Streams that are gone.
    pub dropped: Arc<AtomicUsize>,
}

impl Fake {
    pub(super) fn log(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }
}

impl DatabaseApi for Fake {
    fn open_session(
        self: Arc<Self>,
        options: SessionOptions,
    ) -> Result<Box<dyn SessionApi>, SqlError> {
        if let Some((name, _)) = options
            .params
            .iter()
            .find(|(name, _)| name == "no_such_setting")
        {
            let message = format!("unrecognized configuration parameter \"{name}\"");
            return Err(SqlError::new(SqlState::UNDEFINED_OBJECT, message));
        }
        Ok(Box::new(FakeSession {
            fake: self,
            token: CancelToken::new(),
            status: TransactionStatus::Idle,
            notices: vec![],
            changes: vec![
                ("application_name".into(), options.application_name),
                ("TimeZone".into(), "UTC".into()),
            ],
        }))
    }

    fn metrics(&self) -> String {
        "# TYPE fake gauge\nfake 1\n# EOF\n".into()
    }

    fn health(&self) -> Result<(), SqlError> {
        Ok(())
    }

    fn ready(&self) -> Result<(), SqlError> {
        Err(SqlError::new(
            SqlState::CANNOT_CONNECT_NOW,
            "the database system is starting up",
        ))
    }
}

struct FakeSession {
    fake: Arc<Fake>,
    token: CancelToken,
    status: TransactionStatus,
    notices: Vec<Notice>,
    changes: Vec<(String, String)>,
}

/// One column of each type, and its values in two rows; the second row is NULLs.
pub(super) const ALL_TYPES: [(&str, &str); 19] = [
    ("boolean", "t"),
    ("smallint", "-2"),
    ("integer", "42"),
    ("bigint", "9000000000"),
    ("real", "1.5"),
    ("double", "1e+23"),
    ("numeric", "12345.67"),
    ("text", "é"),
    ("varchar", "abc"),
    ("char", "ab   "),
    ("bytea", "\\x00ff"),
    ("date", "2024-01-02"),
    ("time", "04:05:06.7"),
    ("timestamp", "2024-01-02 03:04:05.6"),
    ("timestamptz", "2024-01-02 03:04:05.6+00"),
    ("interval", "1 year 2 mons 3 days 04:05:06.7"),
    ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("jsonb", "{\"a\": 1}"),
    ("array", "{1,NULL,3}"),
];

pub(super) fn type_named(name: &str) -> SqlType {
    match name {
        "boolean" => SqlType::Boolean,
        "smallint" => SqlType::SmallInt,
        "integer" => SqlType::Integer,
        "bigint" => SqlType::BigInt,
        "real" => SqlType::Real,
        "double" => SqlType::Double,
        "numeric" => SqlType::Numeric {
            precision: 7,
            scale: 2,
        },
        "text" => SqlType::Text,
        "varchar" => SqlType::Varchar { length: 5 },
        "char" => SqlType::Char { length: 5 },
        "bytea" => SqlType::Bytea,
        "date" => SqlType::Date,
        "time" => SqlType::Time,
        "timestamp" => SqlType::Timestamp,
        "timestamptz" => SqlType::TimestampTz,
        "interval" => SqlType::Interval,
        "uuid" => SqlType::Uuid,
        "jsonb" => SqlType::Jsonb,
        "array" => SqlType::Array(Box::new(SqlType::Integer)),
        other => panic!("unknown type {other}"),
    }
}

fn numbers(values: impl IntoIterator<Item = i32>) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int32Array::from_iter_values(values));
    RecordBatch::try_from_iter([("n", column)]).unwrap()
}

fn all_types() -> RecordBatch {
    let fields: Vec<_> = ALL_TYPES
        .iter()
        .map(|(name, _)| type_named(name).field(name, true))
        .collect();
    let columns = ALL_TYPES.iter().map(|(name, text)| {
        let sql_type = type_named(name);
        let mut appender = ValueAppender::new(&sql_type, 2);
        appender.append(&parse_text(text, &sql_type).unwrap());
        appender.append(&tidegate_types::text::Value::Null);
        appender.finish()
    });
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.collect()).unwrap()
}

/// The number in `SELECT word(number)`.
fn argument(text: &str, word: &str) -> Option<i32> {
    text.strip_prefix("SELECT ")?
        .strip_prefix(word)?
        .strip_prefix('(')?
        .strip_suffix(')')?
        .parse()
        .ok()
}

struct CountsDrop(Arc<AtomicUsize>);

impl Drop for CountsDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl FakeSession {
    fn log(&self, entry: impl Into<String>) {
        self.fake.log.lock().unwrap().push(entry.into());
    }

    fn rows(
        &self,
        schema: SchemaRef,
        batches: impl Iterator<Item = RecordBatch> + Send + 'static,
        pause: Duration,
    ) -> Response {
        let polled = self.fake.polled.clone();
        let guard = CountsDrop(self.fake.dropped.clone());
        let stream = stream::unfold((batches, guard), move |(mut batches, guard)| {
            let polled = polled.clone();
            async move {
                polled.fetch_add(1, Ordering::SeqCst);
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                batches.next().map(|batch| (Ok(batch), (batches, guard)))
            }
        });
        Response::Rows {
            schema,
            stream: stream.boxed(),
            tag: RowsTag::Select,
        }
    }

    fn columns(&self, text: &str, parameters: &[SqlType]) -> Option<SchemaRef> {
        if text == "SELECT all_types" {
            return Some(all_types().schema());
        }
        if text.starts_with("SELECT echo(") {
            let fields: Vec<_> = parameters
                .iter()
                .enumerate()
                .map(|(i, t)| t.field(&format!("p{}", i + 1), true))
                .collect();
            return Some(Arc::new(Schema::new(fields)));
        }
        (text.starts_with("SELECT") && !text.contains("hang")).then(|| numbers([]).schema())
    }

    fn set_status(&mut self, status: TransactionStatus, tag: &str) -> Response {
        self.status = status;
        Response::Command { tag: tag.into() }
    }
}

#[async_trait]
impl SessionApi for FakeSession {
    fn parse(&self, sql: &str) -> Result<Vec<ParsedStatement>, SqlError> {
        let error = match tidegate_parser::parse(sql) {
            Ok(statements) => return Ok(statements),
            Err(error) => error,
        };
        Err(
            SqlError::new(SqlState::from_code(error.sqlstate), error.message)
                .with_position(error.position),
        )
    }

    async fn prepare(
        &mut self,
        statement: ParsedStatement,
        declared: Vec<Option<SqlType>>,
    ) -> Result<Prepared, SqlError> {
        let text = statement.text.clone();
        let count = (1..10)
            .take_while(|n| text.contains(&format!("${n}")))
            .count();
        let parameters: Vec<SqlType> = (0..count)
            .map(|i| declared.get(i).cloned().flatten().unwrap_or(SqlType::Text))
            .collect();
        let columns = self.columns(&text, &parameters);
        Ok(Prepared {
            statement: Arc::new(statement),
            parameters,
            columns,
            plan: None,
        })
    }

    async fn execute(
        &mut self,
        prepared: &Prepared,
        parameters: Vec<ScalarValue>,
    ) -> Result<Response, SqlError> {
        let text = prepared.statement.text.as_str();
        self.log(text);
        let schema = numbers([]).schema();
        if self.status == TransactionStatus::Failed && text != "ROLLBACK" {
            return Err(SqlError::new(
                SqlState::IN_FAILED_TRANSACTION,
                "current transaction is aborted",
            ));
        }
        if let Some(count) = argument(text, "generate") {
            let batches = (0..count)
                .step_by(3)
                .map(move |first| numbers(first..count.min(first + 3)));
            return Ok(self.rows(schema, batches, Duration::ZERO));
        }
        if let Some(rows) = argument(text, "endless") {
            let batches = std::iter::repeat_with(move || numbers(0..rows));
            let pause = if rows == 1 {
                Duration::from_millis(20)
            } else {
                Duration::ZERO
            };
            return Ok(self.rows(schema, batches, pause));
        }
        Ok(match text {
            "SELECT all_types" => self.rows(
                all_types().schema(),
                std::iter::once(all_types()),
                Duration::ZERO,
            ),
            text if text.starts_with("SELECT echo(") => {
                let schema = prepared.columns.clone().unwrap();
                let columns = parameters.iter().map(|p| p.to_array().unwrap()).collect();
                let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
                self.rows(schema, std::iter::once(batch), Duration::ZERO)
            }
            "SELECT hang()" => {
                let reason = self.token.cancelled().await;
                self.log(format!("{reason:?}"));
                return Err(reason.error());
            }
            "SELECT fail()" => {
                return Err(
                    SqlError::new(SqlState::DIVISION_BY_ZERO, "division by zero")
                        .with_detail("a detail")
                        .with_hint("a hint")
                        .with_position(8),
                );
            }
            "SELECT broken()" => {
                let error = SqlError::new(SqlState::DIVISION_BY_ZERO, "division by zero");
                let stream = stream::iter([Ok(numbers([1])), Err(error)]).boxed();
                Response::Rows {
                    schema,
                    stream,
                    tag: RowsTag::Select,
                }
            }
            "BEGIN" | "START TRANSACTION" => {
                self.set_status(TransactionStatus::InTransaction, "BEGIN")
            }
            "COMMIT" => self.set_status(TransactionStatus::Idle, "COMMIT"),
            "ROLLBACK" => self.set_status(TransactionStatus::Idle, "ROLLBACK"),
            text if text.starts_with("SET ") => {
                self.changes
                    .push(("application_name".into(), "changed".into()));
                self.notices.push(Notice::notice("it was set"));
                Response::Command { tag: "SET".into() }
            }
            text if text.starts_with("COPY") => {
                let schema = Arc::new(Schema::new(vec![
                    SqlType::Integer.field("a", true),
                    SqlType::Text.field("b", true),
                ]));
                let format = if text.contains("CSV") {
                    CopyFormat::Csv
                } else {
                    CopyFormat::Text
                };
                let options = CopyOptions::of(format);
                if text.contains("FROM") {
                    return Ok(Response::CopyIn(CopyIn {
                        schema,
                        options,
                        target: Arc::new(()),
                    }));
                }
                let columns: Vec<ArrayRef> = vec![
                    Arc::new(Int32Array::from(vec![Some(1), None])),
                    Arc::new(arrow::array::StringArray::from(vec![Some("a\tb"), None])),
                ];
                let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
                Response::CopyOut {
                    schema,
                    stream: stream::iter([Ok(batch)]).boxed(),
                    options,
                }
            }
            text if text.starts_with("INSERT") => Response::Command {
                tag: "INSERT 0 1".into(),
            },
            _ => return Err(SqlError::not_supported(text)),
        })
    }

    async fn copy_in(&mut self, _copy: CopyIn, mut rows: RowStream) -> Result<u64, SqlError> {
        let mut count = 0;
        while let Some(batch) = rows.next().await {
            match batch {
                Ok(batch) => count += batch.num_rows() as u64,
                Err(error) => {
                    self.log(format!("copy undone: {error}"));
                    return Err(error);
                }
            }
        }
        self.log(format!("copied {count}"));
        Ok(count)
    }

    async fn begin_implicit(&mut self) -> Result<(), SqlError> {
        self.log("begin implicit");
        Ok(())
    }

    async fn end_implicit(&mut self, commit: bool) -> Result<(), SqlError> {
        self.log(if commit {
            "commit implicit"
        } else {
            "roll back implicit"
        });
        Ok(())
    }

    fn fail_transaction(&mut self) {
        if self.status == TransactionStatus::InTransaction {
            self.status = TransactionStatus::Failed;
        }
    }

    fn transaction_status(&self) -> TransactionStatus {
        self.status
    }

    fn cancel_token(&self) -> CancelToken {
        self.token.clone()
    }

    fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    fn take_parameter_changes(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.changes)
    }
}
