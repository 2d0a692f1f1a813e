//! From flags, environment and file to a [`Config`]: who wins, and what is wrong with the rest.

use std::fmt;
use std::path::{Path, PathBuf};

use super::settings::{Config, Conflict, Form, SETTINGS, Setting};

/// Everything a configuration may come from. The first that sets a value wins:
/// flags, environment, file, default.
pub(crate) struct Sources<'a> {
    /// Settings given as flags, by name.
    pub(crate) flags: Vec<(&'static str, Vec<String>)>,
    /// All variables of the environment.
    pub(crate) environment: Vec<(String, String)>,
    /// `--config`: a file that must be there. Without it `twine.toml` is read where it is there.
    pub(crate) file: Option<PathBuf>,
    /// Reads a file.
    pub(crate) read: &'a dyn Fn(&Path) -> std::io::Result<String>,
}

/// A checked configuration and where its values came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The configuration.
    pub(crate) config: Config,
    /// What did not stop the start, but was hardly meant so.
    pub(crate) warnings: Vec<String>,
    values: Vec<Value>,
}

/// All that is wrong with a configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub(crate) struct Problems(Vec<Problem>);

/// One thing that is wrong, and what would be right.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("{place}: {value} is no value of `{name}`: it takes {allowed}")]
    Value { place: String, name: &'static str, value: String, allowed: &'static str },
    #[error("{file}: unknown key `{key}`{}", hint(.nearest.as_ref()))]
    UnknownKey { file: String, key: String, nearest: Option<&'static str> },
    #[error("{file}: {message}")]
    File { file: String, message: String },
    #[error(transparent)]
    Conflict(#[from] Conflict),
}

impl Problem {
    /// A secret that is no value of its setting is still one: it is not repeated.
    fn value(place: String, setting: &Setting, text: String) -> Self {
        let value = if setting.form.is_secret() { "what it holds".to_owned() } else { text };
        Self::Value { place, name: setting.name, value, allowed: setting.allowed }
    }
}

#[derive(Debug)]
struct Value {
    setting: &'static Setting,
    values: Vec<String>,
    source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Flag,
    Environment,
    File(String),
    Default,
}

/// Where `--config` may also be set; no setting, for it can't stand in the file it names.
pub(crate) const CONFIG_VARIABLE: &str = "TWINE_CONFIG";
/// Where commands that talk to a hub find it; a hub itself has no use for it.
pub(crate) const URL_VARIABLE: &str = "TWINE_URL";
const DEFAULT_FILE: &str = "twine.toml";

/// Reads and checks a configuration.
///
/// # Errors
/// [`Problems`]: all of them, each naming where it is, key, value and what is allowed.
pub(crate) fn load(sources: &Sources<'_>) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    let file = read_file(sources, &mut problems);
    let mut config = Config::default();
    let mut values = Vec::with_capacity(SETTINGS.len());
    for setting in SETTINGS {
        let value = find(setting, sources, file.as_ref());
        if value.source != Source::Default
            && let Err(refused) = setting.apply(&mut config, &value.values)
        {
            let text = format!("{:?}", refused.0);
            problems.push(Problem::value(value.source.spell(setting), setting, text));
        }
        values.push(value);
    }
    if problems.is_empty() {
        problems.extend(config.conflicts().into_iter().map(Problem::Conflict));
    }
    if problems.is_empty() {
        Ok(Loaded { config, warnings: warnings(sources), values })
    } else {
        Err(Problems(problems))
    }
}

impl fmt::Display for Loaded {
    /// The configuration in force as a `twine.toml`, with each value's source and secrets masked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Value { setting, values, source } in &self.values {
            // Commented out: a mask must not come back as a key where this is used as a file.
            let comment = if is_secret(setting.form, values) { "# " } else { "" };
            let text = match (setting.form, values.as_slice()) {
                (_, []) if *source == Source::Default => {
                    writeln!(f, "# {} is not set", setting.name)?;
                    continue;
                }
                (Form::One, [value]) => quote(value),
                (Form::Secret, [value]) if !is_secret(setting.form, values) => quote(value),
                (Form::Secret, _) => quote("********"),
                (Form::One | Form::List, values) => list(values.iter().map(|value| quote(value))),
                (Form::Secrets, values) => list(values.iter().map(|_| quote("********"))),
            };
            writeln!(f, "{comment}{} = {text}  # {}", setting.name, source.spell(setting))?;
        }
        Ok(())
    }
}

/// Whether these values must not be shown: an address is no secret without the password before its hosts.
fn is_secret(form: Form, values: &[String]) -> bool {
    match form {
        Form::One | Form::List => false,
        Form::Secret => values.iter().any(|value| value.contains('@')),
        Form::Secrets => !values.is_empty(),
    }
}

impl Source {
    fn spell(&self, setting: &Setting) -> String {
        match self {
            Self::Flag => format!("--{}", setting.flag()),
            Self::Environment => setting.variable(),
            Self::File(name) => name.clone(),
            Self::Default => "default".to_owned(),
        }
    }
}

/// A file's settings by name; values of a wrong kind are problems already.
struct File {
    name: String,
    values: Vec<(&'static str, Vec<String>)>,
}

fn find(setting: &'static Setting, sources: &Sources<'_>, file: Option<&File>) -> Value {
    let named = |values: &[(&'static str, Vec<String>)]| {
        values.iter().find(|(name, _)| *name == setting.name).map(|(_, values)| values.clone())
    };
    if let Some(values) = named(&sources.flags) {
        return Value { setting, values, source: Source::Flag };
    }
    // An empty variable counts as none: composed environments set what they have no value for.
    let variable = setting.variable();
    if let Some((_, text)) =
        sources.environment.iter().find(|(name, text)| *name == variable && !text.is_empty())
    {
        let values = match setting.form {
            Form::One | Form::Secret => vec![text.clone()],
            Form::List | Form::Secrets => text.split(',').map(|item| item.trim().to_owned()).collect(),
        };
        return Value { setting, values, source: Source::Environment };
    }
    if let Some(file) = file
        && let Some(values) = named(&file.values)
    {
        return Value { setting, values, source: Source::File(file.name.clone()) };
    }
    let values = setting.default.map(str::to_owned).into_iter().collect();
    Value { setting, values, source: Source::Default }
}

fn read_file(sources: &Sources<'_>, problems: &mut Vec<Problem>) -> Option<File> {
    let path = sources.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    let name = path.display().to_string();
    let text = match (sources.read)(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && sources.file.is_none() => return None,
        Err(error) => {
            problems.push(Problem::File { file: name, message: format!("can't be read: {error}") });
            return None;
        }
    };
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => {
            // Without the line itself, which may hold a key.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            problems.push(Problem::File { file: name, message: format!("line {line}: {}", error.message()) });
            return None;
        }
    };
    let mut values = Vec::new();
    for (key, value) in table {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == key) else {
            problems.push(Problem::UnknownKey { file: name.clone(), nearest: nearest(&key), key });
            continue;
        };
        match texts(setting.form, &value) {
            Some(texts) => values.push((setting.name, texts)),
            None => problems.push(Problem::value(name.clone(), setting, value.to_string())),
        }
    }
    Some(File { name, values })
}

fn texts(form: Form, value: &toml::Value) -> Option<Vec<String>> {
    match (form, value) {
        (_, toml::Value::String(text)) => Some(vec![text.clone()]),
        (_, toml::Value::Integer(number)) => Some(vec![number.to_string()]),
        (Form::List | Form::Secrets, toml::Value::Array(items)) => {
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
        }
        _ => None,
    }
}

fn warnings(sources: &Sources<'_>) -> Vec<String> {
    // Orchestrators set such variables by themselves for a service that is called `twine`.
    let injected = |name: &str| name.starts_with("TWINE_PORT") || name.starts_with("TWINE_SERVICE_");
    let known = |name: &str| {
        [CONFIG_VARIABLE, URL_VARIABLE].contains(&name)
            || SETTINGS.iter().any(|setting| setting.variable() == name)
    };
    sources
        .environment
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| name.starts_with("TWINE_") && !injected(name) && !known(name))
        .map(|name| {
            let key = name.trim_start_matches("TWINE_").to_ascii_lowercase();
            let nearest = nearest(&key).map(|near| format!("TWINE_{}", near.to_ascii_uppercase()));
            format!("unknown environment variable `{name}`{}", hint(nearest.as_ref()))
        })
        .collect()
}

fn nearest(key: &str) -> Option<&'static str> {
    SETTINGS
        .iter()
        .map(|setting| (strsim::damerau_levenshtein(key, setting.name), setting.name))
        .min()
        .filter(|(distance, name)| *distance <= name.len() / 3)
        .map(|(_, name)| name)
}

fn hint(nearest: Option<&impl fmt::Display>) -> String {
    nearest.map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default()
}

fn quote(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(
        flags: &[(&'static str, &str)],
        environment: &[(&str, &str)],
        file: &str,
    ) -> Result<Loaded, Problems> {
        load(&Sources {
            flags: flags.iter().map(|(name, value)| (*name, vec![(*value).to_owned()])).collect(),
            environment: environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            file: None,
            read: &|path| {
                assert_eq!(path, Path::new("twine.toml"));
                Ok(file.to_owned())
            },
        })
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let file = "max_data = 1\nmax_body = 2\nmax_frame = 3\n";
        let environment = [("TWINE_MAX_DATA", "10"), ("TWINE_MAX_BODY", "20")];
        let loaded = with(&[("max_data", "15")], &environment, file).unwrap();
        assert_eq!(
            (
                loaded.config.max_data,
                loaded.config.max_body,
                loaded.config.max_frame,
                loaded.config.max_batch
            ),
            (15, 20, 3, 1000)
        );
        let shown = loaded.to_string();
        for line in [
            "max_data = \"15\"  # --max-data",
            "max_body = \"20\"  # TWINE_MAX_BODY",
            "max_frame = \"3\"  # twine.toml",
            "max_batch = \"1000\"  # default",
            "# public_url is not set",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} is missing in\n{shown}");
        }
    }

    #[test]
    fn lists_come_with_commas_or_as_arrays_and_replace_each_other() {
        let file = r#"allowed_origins = ["https://a.example", "https://b.example"]"#;
        let origins = |loaded: &Loaded| loaded.config.allowed_origins.clone().unwrap().len();
        assert_eq!(origins(&with(&[], &[], file).unwrap()), 2);
        let environment =
            [("TWINE_ALLOWED_ORIGINS", "https://a.example, https://b.example,http://c.example")];
        assert_eq!(origins(&with(&[], &environment, "").unwrap()), 3);
        assert_eq!(origins(&with(&[], &environment, file).unwrap()), 3);
        assert_eq!(origins(&with(&[], &[], "allowed_origins = []").unwrap()), 0);
        assert!(with(&[], &[], "").unwrap().config.allowed_origins.is_none());
        assert!(with(&[], &[("TWINE_ALLOWED_ORIGINS", "")], "").unwrap().config.allowed_origins.is_none());
    }

    #[test]
    fn all_problems_are_reported_at_once_and_say_what_is_allowed() {
        let file = "listen = \"here\"\nmax_dat = 1\nstore = 7\ncolour = \"red\"\n";
        let problems = with(&[("tail_age", "5")], &[("TWINE_STORE_RETENTION", "always")], file).unwrap_err();
        let text = problems.to_string();
        for expected in [
            "twine.toml: \"here\" is no value of `listen`: it takes an IP address and a port",
            "twine.toml: unknown key `max_dat`; did you mean `max_data`?",
            "twine.toml: \"7\" is no value of `store`: it takes sqlite, memory or dynamodb:",
            "twine.toml: unknown key `colour`",
            "--tail-age: \"5\" is no value of `tail_age`: it takes a time like 2m",
            "TWINE_STORE_RETENTION: \"always\" is no value of `store_retention`: it takes a time like 24h",
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
        assert_eq!(text.lines().count(), 6, "{text}");
    }

    #[test]
    fn values_that_exclude_each_other_are_a_problem() {
        let problems = with(&[], &[], "max_data = \"2MiB\"").unwrap_err();
        assert!(
            problems.to_string().contains("`max_body` (1048576 bytes) is below `max_data`"),
            "{problems}"
        );
    }

    #[test]
    fn a_hub_alone_has_every_role_and_says_so() {
        for role in ["publish", "edge"] {
            let problems = with(&[("role", role)], &[], "").unwrap_err().to_string();
            assert!(
                problems.contains(&format!("`role` is `{role}`")) && problems.contains("broker"),
                "{problems}"
            );
        }
        assert!(with(&[], &[("TWINE_ROLE", "all")], "").is_ok());
        let problems = with(&[], &[], "role = \"edges\"").unwrap_err().to_string();
        assert!(problems.contains("it takes all, publish or edge"), "{problems}");
    }

    #[test]
    fn clients_are_not_told_to_go_after_the_end() {
        for window in ["8s", "9s"] {
            let problems = with(&[], &[], &format!("drain_window = \"{window}\"")).unwrap_err().to_string();
            assert!(
                problems.contains(&format!("`drain_window` ({window})"))
                    && problems.contains("`shutdown_grace` (8s)"),
                "{problems}"
            );
        }
        assert!(with(&[], &[], "drain_window = \"7s\"").is_ok());
    }

    #[test]
    fn an_idempotency_window_beyond_the_retention_is_refused_and_both_are_named() {
        for file in ["store_retention = \"5m\"", "idempotency_window = \"25h\""] {
            let problems = with(&[], &[], file).unwrap_err().to_string();
            assert!(
                problems.contains("`idempotency_window`") && problems.contains("`store_retention`"),
                "{problems}"
            );
        }
        for file in [
            "store_retention = \"5m\"\nidempotency_window = \"5m\"",
            "store_retention = \"forever\"\nidempotency_window = \"365d\"",
        ] {
            assert!(with(&[], &[], file).is_ok(), "{file}");
        }
    }

    #[test]
    fn keys_are_shown_to_nobody() {
        let loaded = with(&[], &[("TWINE_API_KEY", "open-sesame,second")], "").unwrap();
        assert!(!loaded.to_string().contains("sesame"), "{loaded}");
        assert!(
            loaded.to_string().contains(r#"# api_key = ["********", "********"]  # TWINE_API_KEY"#),
            "{loaded}"
        );
        assert!(!format!("{:?}", loaded.config).contains("sesame"));
        let problems = with(&[], &[("TWINE_API_KEY", "open sesame")], "").unwrap_err();
        assert!(!problems.to_string().contains("sesame"), "{problems}");
    }

    #[test]
    fn unknown_variables_are_a_warning_except_those_of_an_orchestrator() {
        let environment = [
            ("TWINE_MAX_DATAS", "1"),
            ("TWINE_SERVICE_HOST", "10.0.0.1"),
            ("TWINE_PORT_7070_TCP", "tcp://10.0.0.1:7070"),
            ("TWINE_CONFIG", "x"),
            ("HOME", "/root"),
        ];
        assert_eq!(
            with(&[], &environment, "").unwrap().warnings,
            ["unknown environment variable `TWINE_MAX_DATAS`; did you mean `TWINE_MAX_DATA`?"]
        );
    }

    #[test]
    fn only_a_file_that_was_asked_for_must_be_there() {
        let missing = |_: &Path| Err(std::io::Error::from(std::io::ErrorKind::NotFound));
        let from = |file: Option<&str>| {
            load(&Sources {
                flags: Vec::new(),
                environment: Vec::new(),
                file: file.map(PathBuf::from),
                read: &missing,
            })
        };
        assert!(from(None).is_ok());
        assert!(from(Some("mine.toml")).unwrap_err().to_string().starts_with("mine.toml: can't be read"));
    }

    #[test]
    fn a_file_that_is_no_toml_is_named_with_the_line() {
        let text = with(&[], &[], "store = \"memory\"\napi_key = \"open-sesame\n").unwrap_err().to_string();
        assert!(text.starts_with("twine.toml: line 2: "), "{text}");
        assert!(!text.contains("sesame"), "{text}");
    }
}
