//! Types of options: how a value is read, which are allowed, how it is written down again.
//!
//! In: what stood in the file ([`Raw`]) or in a variable or flag (always text).  Out: [`Value`], inside its range.
//! Always: what [`Value::to_toml`] writes, [`Kind::read`] reads back as the same value (property test).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use protocol::limits::NAME_SIZE_MAX;

use super::fallback::Fallback;
use super::listen::Listen;
use super::problem::ProblemKind;
use super::{Command, units};
use crate::processors::list;

/// Type, unit and range of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number of things.
    Count {
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
        /// Rings index by mask.
        is_power_of_two: bool,
    },
    /// A number of things, or `auto`.
    CountOrAuto {
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
    /// Bytes.
    Size {
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
        /// Frames are aligned.
        multiple_of: u64,
    },
    /// A length of time.
    Duration {
        /// Shortest allowed.
        min: Duration,
        /// Longest allowed.
        max: Duration,
    },
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Switch,
    /// A name of a function or tenant.
    Name,
    /// A path of a directory.
    Path,
    /// Paths of folders and files, or `none`.
    Paths,
    /// Places to listen at, at least one.
    Listeners,
    /// A list of processors, or `none`, or where somebody can choose them `auto`.
    Processors {
        /// Whether somebody can.
        is_auto_allowed: bool,
    },
    /// A program and its arguments.
    Command,
    /// Names and texts for a process's environment.
    Environment,
    /// What stands in for a function.
    Fallback,
    /// The name of a function, or `none`.
    NameOrNone,
    /// The path of a URL.
    UrlPath,
    /// The same, or `none`.
    UrlPathOrNone,
    /// The value of a header.
    HeaderText,
}

/// What an operator wrote, before it is known what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Raw {
    /// A text in quotes, a variable or a flag.
    Text(String),
    /// Digits with their sign.
    Integer(String),
    /// `true` or `false`.
    Switch(bool),
    /// `[..]`
    List(Vec<Raw>),
    /// `{..}` or a `[header]`.
    Table(Vec<(String, Raw)>),
    /// Something no option takes: a date or a fraction.
    Other(&'static str),
}

/// A value that its option allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// To be chosen for this machine, before anybody behind the configuration sees it.
    Auto,
    /// See [`Kind::Count`].
    Count(u64),
    /// See [`Kind::Size`].
    Size(u64),
    /// See [`Kind::Duration`].
    Duration(Duration),
    /// See [`Kind::Choice`].
    Choice(&'static str),
    /// See [`Kind::Switch`].
    Switch(bool),
    /// See [`Kind::Name`].
    Name(String),
    /// See [`Kind::Path`].
    Path(PathBuf),
    /// See [`Kind::Paths`].
    Paths(Vec<PathBuf>),
    /// See [`Kind::Listeners`].
    Listeners(Vec<Listen>),
    /// See [`Kind::Processors`].
    Processors(Vec<u32>),
    /// See [`Kind::Command`].
    Command(Command),
    /// See [`Kind::Environment`].
    Environment(BTreeMap<String, String>),
    /// See [`Kind::Fallback`].
    Fallback(Fallback),
    /// See [`Kind::UrlPath`], [`Kind::HeaderText`] and [`Kind::NameOrNone`].
    Text(String),
}

/// The longest path or header of an option.
const HTTP_TEXT_SIZE_MAX: usize = 1024;

/// Paths that one function names: each is a mount in each of its sandboxes.
const PATHS_COUNT_MAX: usize = 64;

/// Listeners of one router: each costs a socket for every shard.
const LISTENERS_COUNT_MAX: usize = 64;

impl Kind {
    /// A number of things without further condition.
    pub const fn count(min: u64, max: u64) -> Kind {
        Kind::Count { min, max, is_power_of_two: false }
    }

    /// Bytes without further condition.
    pub const fn size(min: u64, max: u64) -> Kind {
        Kind::Size { min, max, multiple_of: 1 }
    }

    /// A length of time.
    pub const fn duration(min: Duration, max: Duration) -> Kind {
        Kind::Duration { min, max }
    }

    /// Reads what was written, or says what is wrong with it.
    pub fn read(self, raw: &Raw) -> Result<Value, ProblemKind> {
        match (self, raw) {
            (Kind::Count { min, max, is_power_of_two }, Raw::Text(text) | Raw::Integer(text)) => {
                let count = units::parse_count(text).map_err(|reason| unreadable(text, reason))?;
                let is_allowed =
                    (min..=max).contains(&count) && (!is_power_of_two || count.is_power_of_two());
                if is_allowed { Ok(Value::Count(count)) } else { Err(self.not_allowed(text)) }
            }
            (Kind::CountOrAuto { .. }, Raw::Text(text)) if text == "auto" => Ok(Value::Auto),
            (Kind::CountOrAuto { min, max }, Raw::Text(text) | Raw::Integer(text)) => {
                let count = units::parse_count(text).map_err(|reason| unreadable(text, reason))?;
                if (min..=max).contains(&count) {
                    Ok(Value::Count(count))
                } else {
                    Err(self.not_allowed(text))
                }
            }
            (Kind::Size { min, max, multiple_of }, Raw::Text(text) | Raw::Integer(text)) => {
                let size = units::parse_size(text).map_err(|reason| unreadable(text, reason))?;
                let is_allowed = (min..=max).contains(&size) && size.is_multiple_of(multiple_of);
                if is_allowed { Ok(Value::Size(size)) } else { Err(self.not_allowed(text)) }
            }
            // A bare number arrives here too, to be told that it needs a unit.
            (Kind::Duration { min, max }, Raw::Text(text) | Raw::Integer(text)) => {
                let duration = units::parse_duration(text).map_err(|reason| unreadable(text, reason))?;
                if (min..=max).contains(&duration) {
                    Ok(Value::Duration(duration))
                } else {
                    Err(self.not_allowed(text))
                }
            }
            (Kind::Choice(words), Raw::Text(text)) => match words.iter().find(|word| *word == text) {
                Some(word) => Ok(Value::Choice(word)),
                None => Err(self.not_allowed(text)),
            },
            (Kind::Switch, Raw::Switch(is_on)) => Ok(Value::Switch(*is_on)),
            (Kind::Switch, Raw::Text(text)) => match text.as_str() {
                "true" => Ok(Value::Switch(true)),
                "false" => Ok(Value::Switch(false)),
                _ => Err(self.not_allowed(text)),
            },
            (Kind::Name, Raw::Text(text)) if is_name(text) => Ok(Value::Name(text.clone())),
            (Kind::Name, Raw::Text(text)) => Err(self.not_allowed(&format!("`{text}`"))),
            // The router, its shim and its processes must all mean the same place.
            (Kind::Path, Raw::Text(text)) if !text.starts_with('/') || text.contains('\0') => {
                Err(ProblemKind::Unreadable { found: text.clone(), reason: "is not an absolute path".into() })
            }
            (Kind::Path, Raw::Text(text)) => Ok(Value::Path(PathBuf::from(text))),
            (Kind::Paths, Raw::Text(text)) if text == "none" => Ok(Value::Paths(Vec::new())),
            (Kind::Paths, Raw::List(_)) => paths(&self.texts(raw)?),
            (Kind::Listeners, raw) => listeners(&self.texts(raw)?),
            (Kind::Processors { is_auto_allowed: true }, Raw::Text(text)) if text == "auto" => {
                Ok(Value::Auto)
            }
            (Kind::Processors { .. }, Raw::Text(text)) if text == "none" => Ok(Value::Processors(Vec::new())),
            (Kind::Processors { .. }, Raw::Text(text)) => match list::parse(text) {
                Some(processors) => Ok(Value::Processors(processors)),
                None => Err(self.not_allowed(text)),
            },
            (Kind::Command, Raw::List(_)) => command(&self.texts(raw)?),
            (Kind::Environment, Raw::Table(entries)) => self.environment(entries),
            (Kind::NameOrNone, Raw::Text(text)) if is_name(text) => Ok(Value::Text(text.clone())),
            (Kind::NameOrNone, Raw::Text(text)) => Err(self.not_allowed(text)),
            (Kind::Fallback, Raw::Text(text)) => Fallback::read(text).map(Value::Fallback),
            (Kind::UrlPath | Kind::UrlPathOrNone | Kind::HeaderText, Raw::Text(text)) => {
                let is_none = self == Kind::UrlPathOrNone && text == "none";
                let is_allowed =
                    if self == Kind::HeaderText { is_header_text(text) } else { is_url_path(text) };
                if is_none || is_allowed {
                    Ok(Value::Text(text.clone()))
                } else {
                    Err(self.not_allowed(text))
                }
            }
            (_, raw) => Err(self.wrong_type(raw)),
        }
    }

    /// What is allowed, as it stands in the reference page and in error texts.
    pub fn allowed(self) -> String {
        match self {
            Kind::Count { min, max, is_power_of_two: false } => format!("a whole number from {min} to {max}"),
            Kind::Count { min, max, is_power_of_two: true } => format!("a power of two from {min} to {max}"),
            Kind::CountOrAuto { min, max } => format!("auto, or a whole number from {min} to {max}"),
            Kind::Size { min, max, multiple_of } => {
                let range = format!("a size from {} to {}", units::format_size(min), units::format_size(max));
                if multiple_of == 1 { range } else { format!("{range}, a multiple of {multiple_of}") }
            }
            Kind::Duration { min, max } => {
                format!("a duration from {} to {}", units::format_duration(min), units::format_duration(max))
            }
            Kind::Choice(words) => words.join(" or "),
            Kind::Switch => "true or false".into(),
            Kind::Name => format!(
                "a name of 1 to {NAME_SIZE_MAX} letters, digits, `.`, `_` or `-` that starts with a letter or digit"
            ),
            Kind::Path => "an absolute path".into(),
            Kind::Paths => format!(
                "none, or a list of at most {PATHS_COUNT_MAX} paths like [\"./model\", \"/srv/data\"]"
            ),
            Kind::Listeners => "a list of quickfire://ADDRESS:PORT or unix:///PATH".into(),
            Kind::Processors { is_auto_allowed } => {
                let auto = if is_auto_allowed { "auto, " } else { "" };
                format!("{auto}none, or a list of processors like \"2,4-6\"")
            }
            Kind::Command => {
                "a list of texts like [\"./program\", \"argument\"] or [\"builtin:echo\"]".into()
            }
            Kind::Environment => "a table of texts like { NAME = \"value\" }".into(),
            Kind::Fallback => Fallback::allowed(),
            Kind::NameOrNone => "none, or the name of another function".into(),
            Kind::UrlPath => format!("a path like /call of at most {HTTP_TEXT_SIZE_MAX} characters"),
            Kind::UrlPathOrNone => {
                format!("none, or a path like /ready of at most {HTTP_TEXT_SIZE_MAX} characters")
            }
            Kind::HeaderText => format!("1 to {HTTP_TEXT_SIZE_MAX} visible ASCII characters and spaces"),
        }
    }

    /// What stands for the value in `--help`.
    pub fn value_name(self) -> &'static str {
        match self {
            Kind::Count { .. } | Kind::CountOrAuto { .. } => "COUNT",
            Kind::Size { .. } => "SIZE",
            Kind::Duration { .. } => "DURATION",
            Kind::Choice(_) => "WORD",
            Kind::Switch => "true|false",
            Kind::Name | Kind::NameOrNone => "NAME",
            Kind::Path => "DIR",
            Kind::UrlPath | Kind::UrlPathOrNone => "PATH",
            Kind::Listeners => "URL",
            Kind::Processors { .. } => "LIST",
            Kind::Command | Kind::Environment | Kind::Fallback | Kind::HeaderText | Kind::Paths => "VALUE",
        }
    }

    fn not_allowed(self, found: &str) -> ProblemKind {
        ProblemKind::NotAllowed { found: found.to_owned(), allowed: self.allowed() }
    }

    fn wrong_type(self, raw: &Raw) -> ProblemKind {
        ProblemKind::WrongType { expected: self.allowed(), found: raw.type_name() }
    }

    /// The items of a list of texts; a text alone is split at commas, as variables and flags have no other way.
    fn texts(self, raw: &Raw) -> Result<Vec<String>, ProblemKind> {
        match raw {
            Raw::Text(text) => Ok(text.split(',').map(|item| item.trim().to_owned()).collect()),
            Raw::List(items) => items
                .iter()
                .map(|item| match item {
                    Raw::Text(text) => Ok(text.clone()),
                    other => Err(self.wrong_type(other)),
                })
                .collect(),
            other => Err(self.wrong_type(other)),
        }
    }

    fn environment(self, entries: &[(String, Raw)]) -> Result<Value, ProblemKind> {
        let mut variables = BTreeMap::new();
        for (name, raw) in entries {
            let Raw::Text(text) = raw else { return Err(self.wrong_type(raw)) };
            if name.is_empty() || name.contains(['=', '\0']) || text.contains('\0') {
                let reason = "cannot be an environment variable".to_owned();
                return Err(ProblemKind::Unreadable { found: name.clone(), reason });
            }
            if name.starts_with("QUICKFIRE_") {
                let reason = "is reserved; the shim sets the variables that start with QUICKFIRE_".to_owned();
                return Err(ProblemKind::Unreadable { found: name.clone(), reason });
            }
            variables.insert(name.clone(), text.clone());
        }
        Ok(Value::Environment(variables))
    }
}

impl Raw {
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Raw::Text(_) => "a text",
            Raw::Integer(_) => "a number",
            Raw::Switch(_) => "true or false",
            Raw::List(_) => "a list",
            Raw::Table(_) => "a table",
            Raw::Other(name) => name,
        }
    }
}

impl Value {
    /// The value as TOML, in the units an operator would choose.
    pub fn to_toml(&self) -> String {
        match self {
            Value::Auto => quote("auto"),
            Value::Count(count) => count.to_string(),
            Value::Size(size) => quote(&units::format_size(*size)),
            Value::Duration(duration) => quote(&units::format_duration(*duration)),
            Value::Choice(word) => quote(word),
            Value::Switch(is_on) => is_on.to_string(),
            Value::Name(name) => quote(name),
            Value::Path(path) => quote(&path.to_string_lossy()),
            Value::Listeners(listeners) => quote_list(listeners.iter().map(Listen::to_string)),
            Value::Paths(paths) if paths.is_empty() => quote("none"),
            Value::Paths(paths) => quote_list(paths.iter().map(|path| path.to_string_lossy().into_owned())),
            Value::Processors(list) if list.is_empty() => quote("none"),
            Value::Processors(list) => quote(&list::format(list)),
            Value::Command(command) => quote_list(command.words()),
            Value::Fallback(fallback) => quote(&fallback.to_string()),
            Value::Text(text) => quote(text),
            Value::Environment(variables) => {
                let entries: Vec<_> = variables
                    .iter()
                    .map(|(name, text)| format!("{} = {}", quote(name), quote(text)))
                    .collect();
                if entries.is_empty() { "{}".into() } else { format!("{{ {} }}", entries.join(", ")) }
            }
        }
    }
}

impl Command {
    /// The command as the file's list of words.
    pub fn words(&self) -> Vec<String> {
        match self {
            Command::Builtin(name) => vec![format!("builtin:{name}")],
            Command::Program { program, arguments } => {
                let program = program.to_string_lossy().into_owned();
                std::iter::once(program).chain(arguments.iter().cloned()).collect()
            }
        }
    }
}

/// Names that need no quoting in a log line, a path of a log file or a shell.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= NAME_SIZE_MAX
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// What may stand between the method and the version of a request.
fn is_url_path(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= HTTP_TEXT_SIZE_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&byte))
}

fn is_header_text(text: &str) -> bool {
    (1..=HTTP_TEXT_SIZE_MAX).contains(&text.len())
        && text.trim() == text
        && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

fn listeners(texts: &[String]) -> Result<Value, ProblemKind> {
    let listeners: Vec<Listen> = texts
        .iter()
        .map(|text| text.parse().map_err(|reason| unreadable(text, reason)))
        .collect::<Result<_, _>>()?;
    if listeners.is_empty() || listeners.len() > LISTENERS_COUNT_MAX {
        return Err(ProblemKind::NotAllowed {
            found: format!("a list of {}", listeners.len()),
            allowed: format!("1 to {LISTENERS_COUNT_MAX} listeners"),
        });
    }
    Ok(Value::Listeners(listeners))
}

fn paths(texts: &[String]) -> Result<Value, ProblemKind> {
    if texts.len() > PATHS_COUNT_MAX {
        let allowed = format!("at most {PATHS_COUNT_MAX} paths");
        return Err(ProblemKind::NotAllowed { found: format!("a list of {}", texts.len()), allowed });
    }
    for text in texts {
        if text.is_empty() || text.contains('\0') {
            return Err(unreadable(text, "cannot be a path".to_owned()));
        }
        // A sandbox hides what lies around what it shows; to show the root is to have none.
        if Path::new(text).components().all(|part| part == Component::RootDir) {
            return Err(unreadable(text, "would show everything".to_owned()));
        }
    }
    Ok(Value::Paths(texts.iter().map(PathBuf::from).collect()))
}

fn command(words: &[String]) -> Result<Value, ProblemKind> {
    let unstartable = |found: &str, reason: &str| {
        Err(ProblemKind::Unreadable { found: found.to_owned(), reason: reason.to_owned() })
    };
    let Some((program, arguments)) = words.split_first() else {
        return unstartable("[]", "names no program");
    };
    if program.is_empty() || words.iter().any(|word| word.contains('\0')) {
        return unstartable(program, "cannot be a program");
    }
    match program.strip_prefix("builtin:") {
        Some(_) if !arguments.is_empty() => unstartable(program, "takes no arguments"),
        Some(name) => Ok(Value::Command(Command::Builtin(name.to_owned()))),
        None => {
            Ok(Value::Command(Command::Program { program: program.into(), arguments: arguments.to_vec() }))
        }
    }
}

fn unreadable(found: &str, reason: impl std::fmt::Display) -> ProblemKind {
    ProblemKind::Unreadable { found: found.to_owned(), reason: reason.to_string() }
}

fn quote_list<Item: AsRef<str>>(items: impl IntoIterator<Item = Item>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| quote(item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

/// A TOML basic string: quotes, backslashes and control characters escaped.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(control));
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
    out
}
