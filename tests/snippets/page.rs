//! The fenced blocks and the inline code of the Markdown pages.
//!
//! In: the files. Out: each block with its page, line, tag and text, and the commands of a
//! block that shows a terminal.

use std::path::{Path, PathBuf};

/// A fenced block.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// The page's path in the repository.
    pub(super) page: String,
    /// The line of the opening fence, from 1.
    pub(super) line: usize,
    /// The language after the opening fence.
    pub(super) tag: String,
    /// The lines between the fences.
    pub(super) text: String,
}

/// A command of a block that shows a terminal.
#[derive(Debug)]
pub(super) struct Command {
    /// The command as written, with its continuation lines.
    pub(super) text: String,
    /// The lines below it.
    pub(super) output: Vec<String>,
}

impl Block {
    /// Returns page and line, for messages.
    pub(super) fn at(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }

    /// Returns the commands: lines after `$ `, each with what follows it.
    #[track_caller]
    pub(super) fn commands(&self) -> Vec<Command> {
        let mut commands: Vec<Command> = Vec::new();
        let mut continues = false;
        for line in self.text.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                commands.push(Command { text: command.to_owned(), output: Vec::new() });
            } else {
                let last = commands.last_mut();
                let last = last.unwrap_or_else(|| panic!("{}: begin with `$ `", self.at()));
                if continues {
                    last.text.push('\n');
                    last.text.push_str(line);
                } else {
                    last.output.push(line.to_owned());
                    continue;
                }
            }
            continues = line.ends_with('\\');
        }
        commands
    }
}

/// Returns the repository's directory.
pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the text of a file of the repository.
#[track_caller]
pub(super) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the paths of the pages: those at the top, and all below `docs/`.
pub(super) fn pages() -> Vec<String> {
    let mut files = markdown(root());
    files.extend(markdown(&root().join("docs")));
    files.extend(markdown(&root().join("docs/servers")));
    let relative = |path: PathBuf| {
        path.strip_prefix(root()).expect("it is below the root").display().to_string()
    };
    files.into_iter().map(relative).collect()
}

/// Returns the blocks of a page in their order.
#[track_caller]
pub(super) fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (index, line) in read(page).lines().enumerate() {
        match line.trim_start().strip_prefix("```") {
            Some(_) if open => open = false,
            Some(tag) => {
                let (page, tag) = (page.to_owned(), tag.trim().to_owned());
                blocks.push(Block { page, line: index + 1, tag, text: String::new() });
                open = true;
            }
            None if open => {
                let block = blocks.last_mut().expect("one is open");
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {}
        }
    }
    assert!(!open, "{page}: a block is not closed");
    blocks
}

/// Returns the inline code of a page, each piece with its line.
#[track_caller]
pub(super) fn inline(page: &str) -> Vec<(usize, String)> {
    let text = read(page);
    let mut fenced = false;
    let mut pieces = Vec::new();
    for (index, line) in text.lines().enumerate() {
        fenced ^= line.trim_start().starts_with("```");
        if !fenced {
            let code = line.split('`').skip(1).step_by(2);
            pieces.extend(code.map(|code| (index + 1, code.to_owned())));
        }
    }
    pieces
}

fn markdown(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder can be read");
    let paths = entries.map(|entry| entry.expect("a folder can be read").path());
    let mut files: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    files.sort();
    files
}
