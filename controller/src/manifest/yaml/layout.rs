//! Where the parts of a text lie: for `fmt`, which moves lines and never reads values. Comments are in no part.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

/// A place in the text: line and column count from 0, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// One value of the text, as it is laid out.
#[derive(Debug)]
pub(crate) enum Part {
    /// Scalars, aliases and flow collections: from, to (exclusive), and whether it is a block scalar (`|`, `>`).
    Leaf { start: At, end: At, is_block: bool },
    /// A block sequence.
    List(Vec<Part>),
    /// A block mapping: each key's place and its value.
    Map(Vec<(Part, Part)>),
}

/// The parts of each document; `None` when the text is not YAML, or nested deeper than is read elsewhere.
pub(crate) fn layout(text: &str) -> Option<Vec<Part>> {
    std::panic::catch_unwind(|| read(text)).ok().flatten()
}

/// A collection that is still open: where it began, and what is in it (keys and values of a mapping in turns).
struct Open {
    start: At,
    is_flow: bool,
    is_map: bool,
    parts: Vec<Part>,
}

fn read(text: &str) -> Option<Vec<Part>> {
    let lines: Vec<&str> = text.split('\n').collect();
    let is_flow =
        |at: At| lines.get(at.line).and_then(|line| line.chars().nth(at.column)).is_some_and(|c| "[{".contains(c));
    let mut parser = Parser::new_from_str(text);
    let (mut roots, mut open) = (Vec::new(), Vec::<Open>::new());
    while let Some(next) = parser.next_event() {
        let (event, span) = next.ok()?;
        let (start, end) = (at(&span.start), at(&span.end));
        let done = match event {
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => continue,
            Event::StreamEnd => break,
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if open.len() >= super::DEPTH_MAX {
                    return None;
                }
                let is_map = matches!(event, Event::MappingStart(..));
                open.push(Open { start, is_flow: is_flow(start), is_map, parts: Vec::new() });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => closed(open.pop()?, end),
            Event::Alias(_) => Part::Leaf { start, end, is_block: false },
            Event::Scalar(_, style, ..) => {
                Part::Leaf { start, end, is_block: matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) }
            }
        };
        match open.last_mut() {
            Some(above) => above.parts.push(done),
            None => roots.push(done),
        }
    }
    Some(roots)
}

fn closed(open: Open, end: At) -> Part {
    if open.is_flow {
        return Part::Leaf { start: open.start, end, is_block: false };
    }
    if !open.is_map {
        return Part::List(open.parts);
    }
    let mut entries = Vec::with_capacity(open.parts.len() / 2);
    let mut parts = open.parts.into_iter();
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        entries.push((key, value));
    }
    Part::Map(entries)
}

fn at(marker: &Marker) -> At {
    At { line: marker.line().saturating_sub(1), column: marker.col() }
}
