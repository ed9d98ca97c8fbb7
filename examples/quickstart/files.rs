//! Which files the pipeline reads.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// More child workflows than this make the printed tree too long to look at.
const MAX_GROUPS: usize = 12;
const MAX_FILES_OF_GROUP: usize = 8;

/// Entries after which the search ends, so that `--input /` ends, too.
const MAX_ENTRIES: usize = 20_000;

/// The files below one folder of the input. The pipeline passes names, never contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// Relative to the input, with `/` between the parts.
    pub(crate) files: Vec<String>,
}

/// The input of the pipeline.
#[derive(Debug)]
pub(crate) struct Corpus {
    pub(crate) root: PathBuf,
    pub(crate) groups: Vec<Group>,
    /// What was left out, for the user to read.
    pub(crate) notes: Vec<String>,
}

impl Corpus {
    /// The files below `root`, of the given extensions if there are any, by top-level folder.
    /// Leaves out names that begin with a dot, symbolic links, and folders that are marked as a
    /// cache (`CACHEDIR.TAG`), such as cargo's target folder.
    pub(crate) fn find(root: &Path, extensions: &[&str]) -> Result<Self, String> {
        let shown = root.display();
        let entries = fs::read_dir(root);
        let entries =
            entries.map_err(|error| format!("cannot read the folder {shown}: {error}"))?;
        let mut search = Search { extensions, seen: 0, files: Vec::new(), notes: Vec::new() };
        search.folder(entries, "");
        let Search { seen, files, mut notes, .. } = search;
        if seen >= MAX_ENTRIES {
            notes.push(format!("looked at the first {MAX_ENTRIES} files and folders only"));
        }
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in files {
            let name = file.split_once('/').map_or(".", |(folder, _)| folder);
            groups.entry(name.to_owned()).or_default().push(file);
        }
        let mut groups: Vec<Group> =
            groups.into_iter().map(|(name, files)| Group { name, files }).collect();
        if groups.is_empty() {
            let kind = match extensions {
                [] => "no files".to_owned(),
                extensions => format!("no .{} files", extensions.join(" or .")),
            };
            return Err(format!("there are {kind} in {shown}"));
        }
        let found = count(&groups);
        groups.sort_by_key(|group| std::cmp::Reverse(group.files.len()));
        groups.truncate(MAX_GROUPS);
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        for group in &mut groups {
            group.files.sort();
            group.files.truncate(MAX_FILES_OF_GROUP);
        }
        let taken = count(&groups);
        if taken < found {
            notes.push(format!(
                "reads {taken} of {found} files: at most {MAX_FILES_OF_GROUP} of each of \
                 {MAX_GROUPS} folders"
            ));
        }
        Ok(Self { root: root.to_owned(), groups, notes })
    }

    pub(crate) fn file_count(&self) -> usize {
        count(&self.groups)
    }
}

fn count(groups: &[Group]) -> usize {
    groups.iter().map(|group| group.files.len()).sum()
}

struct Search<'a> {
    extensions: &'a [&'a str],
    seen: usize,
    files: Vec<String>,
    notes: Vec<String>,
}

impl Search<'_> {
    fn folder(&mut self, entries: fs::ReadDir, path: &str) {
        for entry in entries {
            if self.seen >= MAX_ENTRIES {
                return;
            }
            self.seen += 1;
            if let Err(error) = entry.and_then(|entry| self.entry(&entry, path)) {
                self.notes.push(format!("left out something in {path}/: {error}"));
            }
        }
    }

    fn entry(&mut self, entry: &fs::DirEntry, folder: &str) -> io::Result<()> {
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            let shown = name.to_string_lossy();
            self.notes.push(format!("left out {folder}{shown}: its name is not UTF-8"));
            return Ok(());
        };
        let kind = entry.file_type()?;
        if name.starts_with('.') {
            return Ok(());
        }
        let path = entry.path();
        if kind.is_dir() && !path.join("CACHEDIR.TAG").exists() {
            match fs::read_dir(&path) {
                Ok(entries) => self.folder(entries, &format!("{folder}{name}/")),
                Err(error) => self.notes.push(format!("left out {folder}{name}/: {error}")),
            }
        } else if kind.is_file() && self.wants(&path) {
            self.files.push(format!("{folder}{name}"));
        }
        Ok(())
    }

    fn wants(&self, path: &Path) -> bool {
        let extension = path.extension().and_then(|extension| extension.to_str());
        self.extensions.is_empty() || extension.is_some_and(|e| self.extensions.contains(&e))
    }
}
