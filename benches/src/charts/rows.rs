//! The rows of a comparison, and the notes above them.

use std::{fs, path::Path};

use serde::Deserialize;

use crate::Result;

#[derive(Deserialize)]
pub struct Row {
    pub subject: String,
    pub work: String,
    pub measure: String,
    pub contender: String,
    pub role: Role,
    /// In nanoseconds; in bytes in subjects that no chart shows.
    pub median: f64,
    pub rounds: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Ours,
    Peer,
    #[serde(rename = "less durable")]
    LessDurable,
    Limit,
}

pub struct Table {
    /// The machine, the commit, and a warning if the machine was busy.
    pub notes: Vec<String>,
    rows: Vec<Row>,
}

/// The rows of one work.
pub struct Work<'t> {
    /// Without the subject, which it begins with.
    pub name: &'t str,
    pub rows: Vec<&'t Row>,
}

impl Table {
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)?;
        let notes = text.lines().filter_map(|line| line.strip_prefix('#'));
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(b'\t')
            .comment(Some(b'#'))
            .quoting(false)
            .from_reader(text.as_bytes());
        Ok(Self {
            notes: notes.map(|note| note.trim().to_owned()).collect(),
            rows: reader.deserialize().collect::<csv::Result<_>>()?,
        })
    }

    pub fn has(&self, subject: &str) -> bool {
        self.rows.iter().any(|row| row.subject == subject)
    }

    /// The works of a subject, in the order in which they ran.
    pub fn works(&self, subject: &str) -> Vec<Work<'_>> {
        let rows: Vec<_> = self.rows.iter().collect();
        let works = rows.chunk_by(|one, next| one.work == next.work);
        let works = works.filter(|rows| rows[0].subject == subject);
        works.map(|rows| Work::new(rows.to_vec())).collect()
    }
}

impl<'t> Work<'t> {
    fn new(rows: Vec<&'t Row>) -> Self {
        let work = rows[0].work.as_str();
        let name = work.strip_prefix(rows[0].subject.as_str());
        let name = name.and_then(|name| name.strip_prefix(", "));
        Self {
            name: name.unwrap_or(work),
            rows,
        }
    }

    pub fn rounds(&self) -> usize {
        self.rows[0].rounds
    }
}
