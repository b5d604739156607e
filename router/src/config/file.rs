//! The text of a configuration file becomes a flat list of keys with what was written and where.
//!
//! In: any text.  Out: [`Entry`] for each key below `[router]`, `[defaults]`, `[tenants.NAME]` and `[functions.NAME]`, and
//! what is wrong with the shape.
//! Never: panics, recurses deeper than the file's three levels, or takes a text above [`TEXT_SIZE_MAX`].

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem, ProblemKind};
use super::section::Section;
use super::value::{Kind, Raw, is_name};

/// The largest configuration file: some thirty thousand functions, written generously.
pub const TEXT_SIZE_MAX: usize = 4 << 20;
/// Functions of one configuration.
pub const FUNCTIONS_COUNT_MAX: usize = 4096;
/// Tenants of one configuration, the default one beside them.
pub const TENANTS_COUNT_MAX: usize = 1023;

/// The tables a file may hold.
const TABLES: [&str; 4] = ["router", "defaults", "tenants", "functions"];

/// One key of the file.
#[derive(Debug)]
pub struct Entry {
    /// The table it stands in.
    pub section: Section,
    /// The key inside its table.
    pub key: String,
    /// What was written.
    pub raw: Raw,
    /// Where the key stands.
    pub place: Place,
}

/// A file, flattened.
#[derive(Debug, Default)]
pub struct File {
    /// Tenants with a table, also an empty one, in the order of the names, and where they stand.
    pub tenants: Vec<(String, Place)>,
    /// The same of functions.
    pub functions: Vec<(String, Place)>,
    /// Every key.
    pub entries: Vec<Entry>,
    /// What is wrong with the shape of the file. What could be read is in the other fields all the same.
    pub problems: Vec<Problem>,
}

impl File {
    /// Takes the text apart.
    pub fn read(text: &str, origin: &str) -> File {
        let mut reader = Reader {
            lines: LineIndex::new(text),
            text,
            origin,
            duplicate_table_end: 0,
            file: File::default(),
        };
        if text.len() > TEXT_SIZE_MAX {
            let allowed = format!("a file of at most {TEXT_SIZE_MAX} bytes");
            reader.problem(
                0..0,
                "",
                ProblemKind::NotAllowed { found: format!("{} bytes", text.len()), allowed },
            );
            return reader.file;
        }
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            reader.syntax_error(error.message(), error.span().unwrap_or(0..0));
        }
        reader.top(table.get_ref());
        reader.file
    }
}

struct Reader<'text> {
    lines: LineIndex,
    text: &'text str,
    origin: &'text str,
    /// Where the table that is being told to be a duplicate ends.
    duplicate_table_end: usize,
    file: File,
}

impl Reader<'_> {
    fn top(&mut self, table: &DeTable<'_>) {
        for (name, value) in table {
            let span = name.span();
            match (name.get_ref().as_ref(), value.get_ref()) {
                ("router", DeValue::Table(options)) => self.options(&Section::Router, options),
                ("defaults", DeValue::Table(options)) => self.options(&Section::Defaults, options),
                ("tenants", DeValue::Table(tenants)) => {
                    self.file.tenants = self.named("tenants", TENANTS_COUNT_MAX, Section::Tenant, tenants);
                }
                ("functions", DeValue::Table(functions)) => {
                    self.file.functions =
                        self.named("functions", FUNCTIONS_COUNT_MAX, Section::Function, functions);
                }
                (table_name, other) if TABLES.contains(&table_name) => {
                    let expected = match table_name {
                        "router" | "defaults" => format!("a table: [{table_name}]"),
                        _ => format!("tables: [{table_name}.NAME]"),
                    };
                    let found = Self::raw(other).type_name();
                    self.problem(span, table_name, ProblemKind::WrongType { expected, found });
                }
                (other, _) => {
                    let nearest = super::nearest(other, TABLES.into_iter());
                    self.problem(span, other, ProblemKind::UnknownKey { nearest });
                }
            }
        }
    }

    /// The tables of one kind, `[functions.NAME]`: which there are, and where they stand.
    fn named(
        &mut self,
        tables: &str,
        count_max: usize,
        section: fn(String) -> Section,
        named: &DeTable<'_>,
    ) -> Vec<(String, Place)> {
        let mut found = Vec::new();
        for (name, value) in named {
            let (name, span) = (name.get_ref().as_ref(), name.span());
            let key = format!("{tables}.{name}");
            let DeValue::Table(options) = value.get_ref() else {
                let found = Self::raw(value.get_ref()).type_name();
                let expected = format!("a table: [{key}]");
                self.problem(span, &key, ProblemKind::WrongType { expected, found });
                continue;
            };
            if !is_name(name) {
                let (found, allowed) = (format!("`{name}`"), Kind::Name.allowed());
                self.problem(span, &key, ProblemKind::NotAllowed { found, allowed });
                continue;
            }
            if found.len() == count_max {
                let (found, allowed) = (named.len().to_string(), format!("at most {count_max} {tables}"));
                self.problem(span, tables, ProblemKind::NotAllowed { found, allowed });
                break;
            }
            let place = self.place(&span);
            found.push((name.to_owned(), place));
            self.options(&section(name.to_owned()), options);
        }
        found
    }

    fn options(&mut self, section: &Section, options: &DeTable<'_>) {
        for (key, value) in options {
            let place = self.place(&key.span());
            self.file.entries.push(Entry {
                section: section.clone(),
                key: key.get_ref().to_string(),
                raw: Self::raw(value.get_ref()),
                place,
            });
        }
    }

    /// Two levels are as deep as any option goes; below them it does not matter what was written.
    fn raw(value: &DeValue<'_>) -> Raw {
        Self::raw_with(value, |inner: &Spanned<DeValue<'_>>| {
            Self::raw_with(inner.get_ref(), |_| Raw::Other("a value inside a value inside a value"))
        })
    }

    fn raw_with(value: &DeValue<'_>, inner: impl Fn(&Spanned<DeValue<'_>>) -> Raw) -> Raw {
        match value {
            DeValue::String(text) => Raw::Text(text.to_string()),
            DeValue::Integer(integer) if integer.radix() == 10 => Raw::Integer(integer.as_str().to_owned()),
            DeValue::Integer(_) => Raw::Other("a number that is not decimal"),
            DeValue::Float(_) => Raw::Other("a fraction"),
            DeValue::Boolean(is_on) => Raw::Switch(*is_on),
            DeValue::Datetime(_) => Raw::Other("a date"),
            DeValue::Array(items) => Raw::List(items.iter().map(inner).collect()),
            DeValue::Table(table) => Raw::Table(
                table.iter().map(|(name, value)| (name.get_ref().to_string(), inner(value))).collect(),
            ),
        }
    }

    fn syntax_error(&mut self, message: &str, span: Range<usize>) {
        if !message.contains("duplicate key") {
            return self.problem(span, "", ProblemKind::Syntax(message.to_owned()));
        }
        if span.start < self.duplicate_table_end {
            return;
        }
        let before = self.text.get(..span.start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text.get(line_start..).unwrap_or_default().lines().next().unwrap_or_default().trim();
        match line.strip_prefix('[').and_then(|header| header.split_once(']')) {
            // The keys of a table written twice are duplicates too; the table says it all.
            Some((name, _)) => {
                let after = self.text.get(span.start..).unwrap_or_default();
                self.duplicate_table_end = after.find("\n[").map_or(self.text.len(), |at| span.start + at);
                self.problem(line_start..line_start, name.trim(), ProblemKind::Duplicate);
            }
            None => {
                let key = self.text.get(span.clone()).unwrap_or_default().to_owned();
                self.problem(span, &key, ProblemKind::Duplicate);
            }
        }
    }

    fn problem(&mut self, span: Range<usize>, key: &str, kind: ProblemKind) {
        let place = self.place(&span);
        self.file.problems.push(Problem { place, key: key.to_owned(), kind });
    }

    fn place(&self, span: &Range<usize>) -> Place {
        let (line, column) = self.lines.position(self.text, span.start);
        Place::File { origin: self.origin.to_owned(), line, column }
    }
}

/// Columns are counted no further: a file on a single line must not cost the square of its size.
const COLUMN_MAX: usize = 10_000;

/// Where the lines of a text begin.
struct LineIndex(Vec<usize>);

impl LineIndex {
    fn new(text: &str) -> LineIndex {
        let after_newlines = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        LineIndex(std::iter::once(0).chain(after_newlines).collect())
    }

    /// Line and column from 1, columns in characters.
    fn position(&self, text: &str, offset: usize) -> (u32, u32) {
        let line = self.0.partition_point(|start| *start <= offset).max(1) - 1;
        let start = self.0.get(line).copied().unwrap_or(0);
        let rest = text.get(start..).unwrap_or_default();
        let column = rest.char_indices().take(COLUMN_MAX).take_while(|(at, _)| start + at < offset).count();
        (line as u32 + 1, column as u32 + 1)
    }
}
