//! How tasks are executed, as `[tasks.NAME]` and `[run]` say it: everything that does not change an output.

use std::{collections::BTreeMap, num::NonZeroUsize, path::PathBuf, time::Duration};

use e3_types::{Name, Retry, RetryClass, Sandbox, TaskLimits, TaskPolicy};

use crate::{
    error::{PipelineError, SourceText},
    model::{At, RunSettings},
    reader::{TableReader, Value, boolean, count, parsed, string, strings, wrong_type},
    units::{parse_duration, parse_size},
};

/// Reads the policy of a task.
pub(crate) fn task(
    source: &SourceText,
    table: &mut TableReader<'_>,
    run: &RunSettings,
) -> Result<TaskPolicy, PipelineError> {
    let strict = match table.get("sandbox") {
        Some(value) => is_strict(source, &table.what("sandbox"), value)?,
        None => run.sandbox,
    };
    let network = match table.get("network") {
        Some(value) => Some((boolean(source, &table.what("network"), value)?, value.span())),
        None => None,
    };
    let sandbox = match (strict, network) {
        (true, network) => Sandbox::Strict { network: network.is_some_and(|(network, _)| network) },
        (false, Some((false, span))) => {
            let message = "only `sandbox = \"strict\"` can take the network away";
            return Err(source.error(&span, message));
        }
        (false, _) => Sandbox::Off,
    };
    Ok(TaskPolicy {
        cache: match table.get("cache") {
            Some(value) => boolean(source, &table.what("cache"), value)?,
            None => true,
        },
        retries: match table.get("retries") {
            Some(value) => Some(retries(source, table.what("retries"), value)?),
            None => None,
        },
        timeout_ms: match table.get("timeout") {
            Some(value) => Some(milliseconds(duration(source, &table.what("timeout"), value)?)),
            None => None,
        },
        resources: match table.get("resources") {
            Some(value) => amounts(source, &table.what("resources"), value, true)?,
            None => BTreeMap::new(),
        },
        limits: match table.get("limits") {
            Some(value) => limits(source, table.what("limits"), value)?,
            None => TaskLimits::default(),
        },
        sandbox,
    })
}

/// Reads `[run]`.
pub(crate) fn run(source: &SourceText, value: &Value<'_>) -> Result<RunSettings, PipelineError> {
    let mut table = TableReader::new(source, "[run]", value)?;
    let settings = RunSettings {
        jobs: match table.get("jobs") {
            Some(value) => {
                let jobs = count(source, &table.what("jobs"), value, 1)?;
                NonZeroUsize::new(usize::try_from(jobs).unwrap_or(usize::MAX))
            }
            None => None,
        },
        keep_going: match table.get("keep_going") {
            Some(value) => Some(boolean(source, &table.what("keep_going"), value)?),
            None => None,
        },
        grace: match table.get("grace") {
            Some(value) => Some(duration(source, &table.what("grace"), value)?),
            None => None,
        },
        sandbox: match table.get("sandbox") {
            Some(value) => is_strict(source, &table.what("sandbox"), value)?,
            None => false,
        },
        sandbox_readable: match table.get("sandbox_readable") {
            Some(value) => strings(source, &table.what("sandbox_readable"), value)?
                .into_iter()
                .map(|path| absolute(source, path))
                .collect::<Result<_, _>>()?,
            None => Vec::new(),
        },
        log_limit: match table.get("log_limit") {
            Some(value) => Some(size(source, &table.what("log_limit"), value)?),
            None => None,
        },
        limits: match table.get("limits") {
            Some(value) => amounts(source, &table.what("limits"), value, false)?,
            None => BTreeMap::new(),
        },
    };
    table.finish()?;
    Ok(settings)
}

/// Whether a sandbox is wanted.
fn is_strict(source: &SourceText, what: &str, value: &Value<'_>) -> Result<bool, PipelineError> {
    let text = string(source, what, value)?;
    match text.value.as_str() {
        "off" => Ok(false),
        "strict" => Ok(true),
        other => {
            let message = format!("{what} must be \"off\" or \"strict\", but is \"{other}\"");
            Err(source.error(&text.span, message))
        }
    }
}

fn absolute(source: &SourceText, path: At<String>) -> Result<PathBuf, PipelineError> {
    if !path.value.starts_with('/') {
        return Err(source.error(&path.span, format!("`{}` must be an absolute path", path.value)));
    }
    Ok(path.value.into())
}

/// What a task may use at most.
fn limits(source: &SourceText, what: String, value: &Value<'_>) -> Result<TaskLimits, PipelineError> {
    let mut table = TableReader::new(source, what, value)?;
    let limits = TaskLimits {
        memory: match table.get("memory") {
            Some(value) => Some(size(source, &table.what("memory"), value)?),
            None => None,
        },
        open_files: match table.get("open_files") {
            Some(value) => Some(u64::from(count(source, &table.what("open_files"), value, 1)?)),
            None => None,
        },
        cpu_ms: match table.get("cpu_time") {
            Some(value) => Some(milliseconds(duration(source, &table.what("cpu_time"), value)?)),
            None => None,
        },
    };
    table.finish()?;
    Ok(limits)
}

fn retries(source: &SourceText, what: String, value: &Value<'_>) -> Result<Retry, PipelineError> {
    let mut table = TableReader::new(source, what, value)?;
    let max = count(source, &table.what("max"), table.require("max")?, 0)?;
    let backoff = match table.get("backoff") {
        Some(value) => duration(source, &table.what("backoff"), value)?,
        None => Duration::from_secs(1),
    };
    let on = match table.get("on") {
        Some(value) => strings(source, &table.what("on"), value)?
            .iter()
            .map(|class| parsed(source, class))
            .collect::<Result<_, _>>()?,
        None => vec![RetryClass::Exit(None), RetryClass::Signal(None), RetryClass::Timeout],
    };
    table.finish()?;
    Ok(Retry { max, backoff_ms: milliseconds(backoff), on })
}

/// Amounts of resources. `cpu` is a number of cores, `memory` a size; `with_cpu` says whether the former may be there.
fn amounts(
    source: &SourceText,
    what: &str,
    value: &Value<'_>,
    with_cpu: bool,
) -> Result<BTreeMap<Name, u64>, PipelineError> {
    let mut amounts = BTreeMap::new();
    for (key, value) in TableReader::new(source, what, value)?.entries() {
        let name: Name = parsed(source, &At { value: key.get_ref().clone().into_owned(), span: key.span() })?;
        let what = format!("`{name}` in {what}");
        let amount = match name.as_str() {
            "cpu" if !with_cpu => {
                let message = "the number of cores is limited by `jobs` in [run]";
                return Err(source.error(&key.span(), message));
            }
            "memory" => size(source, &what, value)?,
            "cpu" => u64::from(count(source, &what, value, 1)?),
            _ => u64::from(count(source, &what, value, 0)?),
        };
        amounts.insert(name, amount);
    }
    Ok(amounts)
}

fn size(source: &SourceText, what: &str, value: &Value<'_>) -> Result<u64, PipelineError> {
    if !value.get_ref().is_str() {
        let expected = "a size in quotes, such as \"4GiB\"";
        return Err(wrong_type(source, &value.span(), what, expected, value.get_ref()));
    }
    let text = string(source, what, value)?;
    parse_size(&text.value).map_err(|message| source.error(&text.span, message))
}

fn duration(source: &SourceText, what: &str, value: &Value<'_>) -> Result<Duration, PipelineError> {
    if !value.get_ref().is_str() {
        let expected = "a duration in quotes, such as \"10m\"";
        return Err(wrong_type(source, &value.span(), what, expected, value.get_ref()));
    }
    let text = string(source, what, value)?;
    parse_duration(&text.value).map_err(|message| source.error(&text.span, message))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("durations are parsed as a number of milliseconds")
}
