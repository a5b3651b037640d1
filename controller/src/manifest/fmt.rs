//! The one layout of a manifest: two spaces a level, lists as deep as their key, one space after `-` and `:`, at most one
//! blank line in a row, no blanks at ends of lines, one line end. Order, quotes, flow collections, block texts and
//! comments stay as they are written; a text whose meaning would change is given back unchanged.

#[cfg(test)]
mod tests;

use super::tree::{Node, Value};
use super::yaml;
use super::yaml::layout::{At, Part, layout};

/// Why a text keeps its layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotFormatted {
    /// It is not YAML: where (line and column from 1) and why.
    Broken {
        /// Line, from 1.
        line: u32,
        /// Column, from 1.
        column: u32,
        /// What the parser says.
        why: String,
    },
    /// Our layout would read as something else: an unusual way to write YAML.
    Unusual,
}

/// The text in the one layout. Applied to its own result it changes nothing.
///
/// # Errors
/// See [`NotFormatted`]; the text should be left as it is.
pub fn fmt(text: &str) -> Result<String, NotFormatted> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    if text.contains('\r') {
        // Alone it ends a line for YAML, for an editor it does not.
        return Err(NotFormatted::Unusual);
    }
    let before = yaml::parse_expanded(&text);
    if let Some(fatal) = before.fatal.first() {
        let (line, column) = (fatal.extent.line, fatal.extent.column);
        return Err(NotFormatted::Broken { line, column, why: fatal.what.clone() });
    }
    let parts = layout(&text).ok_or(NotFormatted::Unusual)?;
    let mut lines = Lines::of(&text);
    for part in &parts {
        lines.place(part, 0, 0);
    }
    let after = lines.write();
    let read = yaml::parse_expanded(&after);
    let is_same = read.fatal.is_empty()
        && read.documents.len() == before.documents.len()
        && before.documents.iter().zip(&read.documents).all(|(a, b)| same(&a.root, &b.root));
    if is_same { Ok(after) } else { Err(NotFormatted::Unusual) }
}

/// The same values; places do not matter.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::Scalar(a), Value::Scalar(b)) => a == b,
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.key == b.key && same(&a.value, &b.value))
        }
        (Value::Unknown, Value::Unknown) => true,
        (Value::Scalar(_) | Value::List(_) | Value::Map(_) | Value::Unknown, _) => false,
    }
}

/// One line of the text and what becomes of it.
struct Line {
    text: Vec<char>,
    /// The new column of its first character, when a key, a dash or a value of its own begins it.
    column: Option<usize>,
    /// How far lines that continue its value move: new column less old.
    moved: isize,
    /// In the middle of a text or a flow collection: moves with the line where that began.
    within: Option<usize>,
    /// Blanks before this column (in characters) that become one.
    gaps: Vec<usize>,
}

impl Line {
    fn indent(&self) -> usize {
        self.text.iter().take_while(|c| **c == ' ').count()
    }

    fn is_blank(&self) -> bool {
        self.text.iter().all(|c| c.is_whitespace())
    }

    fn is_comment(&self) -> bool {
        self.text.get(self.indent()) == Some(&'#')
    }
}

struct Lines(Vec<Line>);

impl Lines {
    fn of(text: &str) -> Self {
        let line =
            |text: &str| Line { text: text.chars().collect(), column: None, moved: 0, within: None, gaps: Vec::new() };
        Self(text.strip_suffix('\n').unwrap_or(text).split('\n').map(line).collect())
    }

    /// Decides where a value that stands at `column` goes; `below` is the old column of the key or dash it belongs to.
    fn place(&mut self, part: &Part, column: usize, below: usize) {
        match part {
            Part::Leaf { start, end, is_block } => self.leaf(*start, *end, *is_block, column, below),
            Part::Map(entries) => {
                for (key, value) in entries {
                    let Part::Leaf { start, .. } = key else { continue };
                    self.begin(*start, column);
                    self.gap_after_colon(key, value);
                    let deeper = if matches!(value, Part::List(_)) { column } else { column + 2 };
                    self.place(value, deeper, start.column);
                }
            }
            Part::List(items) => {
                for item in items {
                    let Some((dash, start)) = self.first(item).and_then(|start| Some((self.dash(start)?, start)))
                    else {
                        continue;
                    };
                    self.begin(dash, column);
                    if dash.line == start.line {
                        self.gap(start.line, dash.column + 1);
                    }
                    self.place(item, column + 2, dash.column);
                }
            }
        }
    }

    /// Something at `at` gets a new column; it moves its line when nothing but blanks is before it.
    fn begin(&mut self, at: At, column: usize) {
        let Some(line) = self.0.get_mut(at.line) else { return };
        if line.indent() == at.column {
            line.column = Some(column);
        }
        line.moved = column.cast_signed() - at.column.cast_signed();
    }

    /// A value that no line of which but the first has a place of its own.
    fn leaf(&mut self, start: At, end: At, is_block: bool, column: usize, below: usize) {
        let Some(first) = self.0.get_mut(start.line) else { return };
        if first.column.is_none() && first.indent() == start.column && start < end {
            first.column = Some(column);
            first.moved = column.cast_signed() - start.column.cast_signed();
        }
        let last = if is_block { self.0.len() } else { end.line + 1 };
        for number in start.line + 1..last.min(self.0.len()) {
            let line = &mut self.0[number];
            if is_block && !line.is_blank() && line.indent() <= below {
                // At the root a text may stand at the margin; there it ends where the parser says.
                if below > 0 || number >= end.line {
                    break;
                }
            }
            line.within = Some(start.line);
        }
    }

    /// Where a value begins: a list with its first dash.
    fn first(&self, part: &Part) -> Option<At> {
        match part {
            Part::Leaf { start, .. } => Some(*start),
            Part::Map(entries) => self.first(&entries.first()?.0),
            Part::List(items) => self.dash(self.first(items.first()?)?),
        }
    }

    /// The dash of the item that begins at `start`: before it on its line, or alone on a line above.
    fn dash(&self, start: At) -> Option<At> {
        let line = &self.0.get(start.line)?.text;
        let mut column = start.column.min(line.len());
        loop {
            let before = line[..column].iter().rposition(|c| *c != ' ');
            match before {
                Some(at) if line[at] == '-' && line.get(at + 1).is_none_or(|c| *c == ' ') => {
                    return Some(At { line: start.line, column: at });
                }
                // An anchor or a tag.
                Some(at) => {
                    let word = line[..at].iter().rposition(|c| *c == ' ').map_or(0, |blank| blank + 1);
                    if !"&!".contains(line[word]) {
                        return None;
                    }
                    column = word;
                }
                None => break,
            }
        }
        let above = self.0[..start.line].iter().rposition(|line| !line.is_blank() && !line.is_comment())?;
        let column = self.0[above].indent();
        let is_dash = self.0[above].text.get(column) == Some(&'-');
        is_dash.then_some(At { line: above, column })
    }

    fn gap_after_colon(&mut self, key: &Part, value: &Part) {
        let (Part::Leaf { end, .. }, Part::Leaf { start, .. }) = (key, value) else { return };
        let Some(line) = self.0.get(end.line).filter(|_| end.line == start.line && end.column < start.column) else {
            return;
        };
        let Some(between) = line.text.get(end.column..start.column) else { return };
        if between.first() == Some(&':') && between[1..].iter().all(|c| *c == ' ') {
            self.gap(start.line, end.column + 1);
        }
    }

    /// Blanks from this column on become one.
    fn gap(&mut self, line: usize, column: usize) {
        self.0[line].gaps.push(column);
    }

    fn write(&self) -> String {
        let mut out = String::new();
        let mut blanks = 0;
        for number in 0..self.0.len() {
            let line = &self.0[number];
            if line.within.is_none() && line.is_blank() {
                blanks += 1;
                continue;
            }
            if blanks > 0 && !out.is_empty() {
                out.push('\n');
            }
            blanks = 0;
            self.line(number, &mut out);
            out.push('\n');
        }
        out
    }

    fn line(&self, number: usize, out: &mut String) {
        let line = &self.0[number];
        let indent = line.indent();
        let shifted = |moved: isize| indent.saturating_add_signed(moved);
        let column = match (line.within, line.column) {
            (Some(_), _) if line.is_blank() => 0,
            (Some(owner), _) => shifted(self.0[owner].moved),
            (None, Some(column)) => column,
            (None, None) if line.is_comment() => self.of_comment(number),
            (None, None) => {
                shifted(self.0[..number].iter().rev().find(|line| line.column.is_some()).map_or(0, |l| l.moved))
            }
        };
        let mut text = String::new();
        let mut skip = false;
        for (at, c) in line.text.iter().enumerate().skip(indent) {
            if line.gaps.contains(&at) {
                text.push(' ');
                skip = true;
            }
            skip &= *c == ' ';
            if !skip {
                text.push(*c);
            }
        }
        let text = if line.within.is_some() { text.as_str() } else { text.trim_end() };
        if !text.is_empty() {
            out.extend(std::iter::repeat_n(' ', column));
            out.push_str(text);
        }
    }

    /// A comment goes with the line below it, or, when it was written as deep as something above, with that.
    fn of_comment(&self, number: usize) -> usize {
        let indent = self.0[number].indent();
        let mut below = self.0[number + 1..].iter().filter_map(|line| Some((line.indent(), line.column?)));
        let mut above = self.0[..number].iter().rev().filter_map(|line| Some((line.indent(), line.column?)));
        let next = below.next();
        let same = next.filter(|(old, _)| *old == indent).or_else(|| above.find(|(old, _)| *old == indent));
        same.or(next).map_or(indent, |(_, new)| new)
    }
}
