//! Opening buckets: `s3://`, `gs://` and `az://` locations with their options.
//!
//! Options come from the environment first and from the location's query second; an unknown one is refused by name.
//! Messages never show a query, which may hold secrets.

use crate::error::StorageError;
use crate::storage::{Storage, chain};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path as ObjectPath;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// `rest` is what follows `scheme://`.
pub(crate) fn open_bucket(scheme: &str, rest: &str) -> Result<Storage, StorageError> {
    let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, prefix) = base.split_once('/').unwrap_or((base, ""));
    let location = format!("{scheme}://{base}");
    let invalid = |cause: String| StorageError::Location {
        url: location.clone(),
        cause,
    };
    if bucket.is_empty() {
        return Err(invalid("the bucket is missing".to_owned()));
    }
    let options = query_options(query).map_err(&invalid)?;
    let bucket_url = format!("{scheme}://{bucket}");
    let store: Arc<dyn ObjectStore> = match scheme {
        "s3" | "s3a" => {
            let mut builder = AmazonS3Builder::from_env()
                .with_url(bucket_url)
                .with_retry(client_retry());
            for (name, value) in &options {
                let key =
                    known_option::<AmazonS3ConfigKey>(name, "s3", S3_OPTIONS).map_err(&invalid)?;
                if name.contains("endpoint") && value.starts_with("http://") {
                    builder = builder.with_allow_http(true);
                }
                builder = builder.with_config(key, value);
            }
            if std::env::var("AWS_ENDPOINT_URL").is_ok_and(|e| e.starts_with("http://")) {
                builder = builder.with_allow_http(true);
            }
            Arc::new(builder.build().map_err(|e| invalid(chain(&e)))?)
        }
        "gs" => {
            let mut builder = GoogleCloudStorageBuilder::from_env()
                .with_url(bucket_url)
                .with_retry(client_retry());
            for (name, value) in &options {
                let key =
                    known_option::<GoogleConfigKey>(name, "gs", GS_OPTIONS).map_err(&invalid)?;
                builder = builder.with_config(key, value);
            }
            Arc::new(builder.build().map_err(|e| invalid(chain(&e)))?)
        }
        _ => {
            let mut builder = MicrosoftAzureBuilder::from_env()
                .with_url(bucket_url)
                .with_retry(client_retry());
            for (name, value) in &options {
                let key =
                    known_option::<AzureConfigKey>(name, "az", AZ_OPTIONS).map_err(&invalid)?;
                builder = builder.with_config(key, value);
            }
            Arc::new(builder.build().map_err(|e| invalid(chain(&e)))?)
        }
    };
    let mut storage = Storage::from_store(store, &location);
    storage.prefix = ObjectPath::parse(prefix).map_err(|e| invalid(e.to_string()))?;
    Ok(storage)
}

const S3_OPTIONS: &str = "endpoint, region, access_key_id, secret_access_key, session_token, allow_http, virtual_hosted_style_request";
const GS_OPTIONS: &str =
    "google_service_account, google_service_account_key, google_application_credentials";
const AZ_OPTIONS: &str = "account_name, access_key, sas_token, endpoint, use_emulator";

fn known_option<K: FromStr>(name: &str, scheme: &str, known: &str) -> Result<K, String> {
    K::from_str(name)
        .map_err(|_| format!("unknown option \"{name}\" of {scheme} storage; known are {known}"))
}

/// Bounded so that a checkpoint fails, and is reported, rather than hangs.
fn client_retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 2,
        retry_timeout: Duration::from_secs(20),
    }
}

fn query_options(query: &str) -> Result<Vec<(String, String)>, String> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("\"{pair}\" should be an option, name=value"))?;
            Ok((name.to_ascii_lowercase(), percent_decoded(value)?))
        })
        .collect()
}

fn percent_decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let code = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
            let byte = code.and_then(|hex| u8::from_str_radix(hex, 16).ok());
            bytes.push(byte.ok_or_else(|| {
                format!("\"{text}\" has a % that is not followed by two hex digits")
            })?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).map_err(|_| format!("\"{text}\" is not UTF-8"))
}
