//! The architecture as tests: who may name what, how long things may be, what every file begins with.
//! A rule that matters is here, with its replacement in the message; what is not met yet is in a ratchet that may only
//! shrink (`tidy/ratchet.txt`; `BOXSHIP_TIDY=update cargo test --test tidy` lowers it). The rooms are in `tidy/rooms.rs`.

#[path = "tidy/docs.rs"]
mod docs;
#[path = "tidy/rooms.rs"]
mod rooms;
#[path = "tidy/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};

use source::{Source, files, line_of, matching, occurrences, root, sources};

/// A screen.
const FUNCTION_LINES_MAX: usize = 70;
/// Longer files are asking for a second noun.
const FILE_LINES_MAX: usize = 500;
/// What may lie at the top; anything else needs a page in docs/decisions/.
const TOP_LEVEL: &[&str] = &[
    ".cargo",
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "benches",
    "clippy.toml",
    "controller",
    "deny.toml",
    "deploy",
    "docs",
    "examples",
    "runtime",
    "rustfmt.toml",
    "schemas",
    "tests",
];

/// Fails with all complaints at once.
fn settle(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n\n{}\n\n{} complaints\n", complaints.join("\n"), complaints.len());
}

#[test]
fn rooms_name_only_what_they_may() {
    let mut complaints = Vec::new();
    for source in sources() {
        for rule in rooms::RULES {
            let within = rule.within.iter().any(|prefix| source.path.starts_with(prefix));
            if !within || rule.but.iter().any(|prefix| source.path.starts_with(prefix)) {
                continue;
            }
            for (line, code) in source.shipped_lines() {
                for word in rule.words {
                    if names(code, word) {
                        complaints.push(format!("{}:{line}: names `{word}`: {}", source.path, rule.instead));
                    }
                }
            }
        }
    }
    settle(&complaints);
}

/// Does the line name the word as a path root, a path or a macro (and not as a method or field of the same name)?
fn names(code: &str, word: &str) -> bool {
    occurrences(code, word).iter().any(|at| {
        let before = code[..*at].trim_end();
        let after = &code[at + word.len()..];
        if word.ends_with('!') || word.contains("::") || word.chars().next().is_some_and(char::is_uppercase) {
            return true;
        }
        match word {
            "unsafe" | "elapsed" => true,
            // a crate or module: `use tokio`, `tokio::spawn`, not `.clock` or `let clock`
            _ => {
                let rooted = before.ends_with("use") || before.ends_with("use runtime::{") || after.starts_with("::");
                rooted && !before.ends_with("self::")
            }
        }
    })
}

#[test]
fn every_file_begins_with_what_lives_in_it() {
    let complaints: Vec<String> = sources()
        .iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| format!("{}:1: begin with `//!`: what lives here, what it must not know", source.path))
        .collect();
    settle(&complaints);
}

#[test]
fn functions_fit_a_screen_and_files_have_one_noun() {
    let mut found = BTreeMap::new();
    for source in sources() {
        for function in source.functions() {
            if function.lines > FUNCTION_LINES_MAX {
                let longest = found.entry(format!("fn {} {}", source.path, function.name)).or_insert(0);
                *longest = function.lines.max(*longest);
            }
        }
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            found.insert(format!("file {}", source.path), lines);
        }
    }
    ratchet(&found);
}

/// Compares what is too long with the committed list: nothing new, nothing grown, and the list follows what shrank.
fn ratchet(found: &BTreeMap<String, usize>) {
    let path = root().join("tests/tidy/ratchet.txt");
    let (comment, listed): (Vec<_>, Vec<_>) = {
        let text = std::fs::read_to_string(&path).expect("tests/tidy/ratchet.txt");
        text.lines().map(str::to_owned).partition(|line| line.starts_with('#'))
    };
    let listed: BTreeMap<String, usize> = listed
        .iter()
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(what, lines)| (what.to_owned(), lines.parse().expect("a number at the end of each line")))
        .collect();
    let mut complaints = Vec::new();
    for (what, lines) in found {
        match listed.get(what) {
            None => complaints.push(format!("{what}: {lines} lines; split it (a function by step, a file by noun)")),
            Some(allowed) if lines > allowed => {
                complaints.push(format!("{what}: grew from {allowed} to {lines} lines; it may only shrink"));
            }
            Some(_) => {}
        }
    }
    settle(&complaints);
    let lowered: BTreeMap<_, _> = found.iter().map(|(what, lines)| (what.clone(), *lines)).collect();
    if lowered != listed && std::env::var("BOXSHIP_TIDY").is_ok_and(|value| value == "update") {
        let lines = lowered.iter().map(|(what, lines)| format!("{what} {lines}"));
        let text: Vec<String> = comment.into_iter().chain(lines).collect();
        std::fs::write(&path, text.join("\n") + "\n").expect("write the ratchet");
    } else {
        assert!(
            lowered == listed,
            "shorter than tests/tidy/ratchet.txt says: BOXSHIP_TIDY=update cargo test --test tidy"
        );
    }
}

#[test]
fn tests_wait_for_states_and_hide_nothing() {
    let replacements = [
        ("thread::sleep", "wait for a state with a deadline (`wait_until`)"),
        ("#[ignore", "make it fast, or print `skipped: why` where the machine cannot run it"),
        ("should_panic", "return a Result and compare the error"),
    ];
    let mut complaints = Vec::new();
    for source in sources() {
        if source.path.starts_with("tests/tidy") {
            continue;
        }
        // a helper that polls with a deadline is the replacement
        let helpers: Vec<_> = source
            .functions()
            .into_iter()
            .filter(|f| f.name.starts_with("wait") || f.name.starts_with("holds"))
            .collect();
        let in_helper = |line: usize| helpers.iter().any(|f| (f.line..f.line + f.lines).contains(&line));
        for (at, line) in source.code.lines().enumerate() {
            for (word, instead) in replacements {
                if source.in_test[at] && line.contains(word) && !in_helper(at + 1) {
                    complaints.push(format!("{}:{}: `{word}` in a test: {instead}", source.path, at + 1));
                }
            }
        }
    }
    settle(&complaints);
}

#[test]
fn matches_on_actions_and_reasons_name_every_variant() {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| source.path.starts_with("controller/src")) {
        for at in occurrences(&source.code, "match") {
            let Some(open) = source.code[at..].find('{').map(|offset| at + offset) else { continue };
            let arms = top_level(&source.code[open + 1..matching(source.code.as_bytes(), open)]);
            let ours = arms.iter().any(|(_, arm)| arm.starts_with("Action::") || arm.starts_with("Reason::"));
            for (offset, arm) in &arms {
                if ours
                    && (arm.starts_with("_ =>") || arm.starts_with("_ if"))
                    && !source.in_test[line_of(&source.code, open + 1 + offset) - 1]
                {
                    let line = line_of(&source.code, open + 1 + offset);
                    complaints.push(format!("{}:{line}: `_ =>` on our own enum: name the variants, so that the compiler finds this place when one is added", source.path));
                }
            }
        }
    }
    settle(&complaints);
}

/// The lines of a block that are not inside a deeper bracket, with their offsets.
fn top_level(block: &str) -> Vec<(usize, &str)> {
    let mut depth = 0_i32;
    let mut offset = 0;
    let mut found = Vec::new();
    for line in block.split_inclusive('\n') {
        if depth == 0 {
            let text = line.trim_start();
            found.push((offset + line.len() - text.len(), text));
        }
        for byte in line.bytes() {
            match byte {
                b'{' | b'(' | b'[' => depth += 1,
                b'}' | b')' | b']' => depth -= 1,
                _ => {}
            }
        }
        offset += line.len();
    }
    found
}

#[test]
fn only_what_was_decided_lies_at_the_top() {
    let complaints: Vec<String> = std::fs::read_dir(root())
        .expect("readable root")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != ".git" && name != "target" && !TOP_LEVEL.contains(&name.as_str()))
        .map(|name| format!("{name}: not a top-level entry: put it in a room, or write a page in docs/decisions/"))
        .collect();
    settle(&complaints);
}

#[test]
fn no_file_names_the_machine_it_was_written_on() {
    // put together here, so that this file does not name them either
    let machine: Vec<String> =
        ["wt", "shared", "main", ".library"].iter().map(|dir| format!("/{}/{dir}", "work")).collect();
    let mut complaints = Vec::new();
    for (path, text) in files(&[".rs", ".md", ".toml", ".sh", ".yaml", ".txt", ".json", "run"]) {
        for (at, line) in text.lines().enumerate() {
            for place in machine.iter().filter(|place| line.contains(place.as_str())) {
                complaints.push(format!("{path}:{}: `{place}` exists on one machine only", at + 1));
            }
        }
    }
    settle(&complaints);
}

#[test]
fn error_texts_are_sentences_that_can_be_joined() {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| !source.path.starts_with("tests/")) {
        for (at, _) in source.text.match_indices("#[error(\"") {
            let text = &source.text[at + 9..];
            let text = &text[..text.find("\")]").unwrap_or(text.len())];
            let shouts = text.starts_with(|c: char| c.is_ascii_uppercase()) && !text.starts_with("BX");
            if shouts || text.ends_with('.') {
                complaints.push(format!(
                    "{}:{}: `{text}`: small first letter, no full stop: errors are joined with `: `",
                    source.path,
                    line_of(&source.text, at)
                ));
            }
        }
    }
    settle(&complaints);
}

#[test]
fn links_in_the_docs_lead_somewhere() {
    settle(&docs::broken_links());
}

#[test]
fn functions_the_docs_walk_through_exist() {
    settle(&docs::missing_functions(&sources()));
}

#[test]
fn every_error_code_is_explained_and_every_explained_code_exists() {
    let in_code: BTreeSet<String> = sources()
        .iter()
        .filter(|source| !source.path.starts_with("tests/"))
        .flat_map(|s| docs::codes(&s.text))
        .collect();
    let page = std::fs::read_to_string(root().join("docs/errors.md")).expect("docs/errors.md");
    let explained: BTreeSet<String> = docs::codes(&page).into_iter().collect();
    let mut complaints = Vec::new();
    for code in in_code.difference(&explained) {
        complaints.push(format!("{code}: not in docs/errors.md: say what it means and what to do"));
    }
    for code in explained.difference(&in_code) {
        complaints.push(format!("{code}: in docs/errors.md, but no code reports it"));
    }
    settle(&complaints);
}

/// Rows of docs/security.md that say `open:`; may only shrink.
const OPEN_ATTACKS_MAX: usize = 6;

/// Everything that stands in tests.
fn test_texts() -> String {
    sources().iter().filter(|s| s.in_test.contains(&true)).map(|s| s.text.as_str()).collect()
}

fn is_test(tests: &str, name: &str) -> bool {
    tests.contains(&format!("\"{name}\"")) || tests.contains(&format!("fn {name}("))
}

#[test]
fn every_known_attack_has_its_test() {
    let page = std::fs::read_to_string(root().join("docs/security.md")).expect("docs/security.md");
    let tests = test_texts();
    let rows = docs::attacks(&page);
    let mut complaints: Vec<String> = (1..=36)
        .filter(|number| rows.iter().filter(|row| row.number == *number).count() != 1)
        .map(|number| format!("docs/security.md: attack S{number} needs exactly one row"))
        .collect();
    for row in &rows {
        if row.tests.is_empty() && !row.says("none applies") && !row.says("open:") {
            complaints.push(format!("docs/security.md: S{} has no test and no reason", row.number));
        }
        let absent = row.tests.iter().filter(|name| !is_test(&tests, name));
        complaints.extend(absent.map(|name| format!("docs/security.md: S{} names no test: {name}", row.number)));
    }
    let open = rows.iter().filter(|row| row.says("open:")).count();
    if open > OPEN_ATTACKS_MAX {
        complaints.push(format!("docs/security.md: {open} rows are open, {OPEN_ATTACKS_MAX} were"));
    }
    settle(&complaints);
}

/// Behaviours of images that people know; the table in docs/TESTING.md has each.
const IMAGE_ROWS: [usize; 17] = [1, 6, 8, 9, 10, 11, 12, 13, 17, 18, 20, 21, 22, 25, 26, 27, 32];

#[test]
fn every_behaviour_of_images_has_its_test() {
    let page = std::fs::read_to_string(root().join("docs/TESTING.md")).expect("docs/TESTING.md");
    let rows = docs::attacks(&page);
    let tests = test_texts();
    let absent = |name: &&String| !is_test(&tests, name.as_str());
    let complaints: Vec<String> = IMAGE_ROWS
        .iter()
        .filter_map(|number| {
            let row = rows.iter().find(|row| row.number == *number);
            let tests = row.map_or(&[][..], |row| &row.tests);
            let wrong: Vec<&String> = tests.iter().filter(absent).collect();
            let is_good = !tests.is_empty() && wrong.is_empty();
            (!is_good).then(|| format!("docs/TESTING.md: row {number} names no test: {wrong:?}"))
        })
        .collect();
    settle(&complaints);
}

// --- the tests of these tests: a gate that never closes is worse than none

#[test]
fn the_lexer_sees_code_only() {
    let text = "a /* tokio /* x */ y */ b // tokio\n\"tokio\\\"\" r#\"tokio\"# 'x' '\\'' &'a str b\"tokio\"";
    let code = source::blank(text);
    assert_eq!(code.len(), text.len());
    assert!(!code.contains("tokio"), "{code}");
    assert!(code.contains("&'a str"), "{code}");
}

#[test]
fn a_forbidden_word_is_found_and_a_field_of_that_name_is_not() {
    assert!(names("use tokio::spawn;", "tokio") && names("    tokio::spawn(x)", "tokio"));
    assert!(
        names("use sled;", "sled")
            && names("println!(\"\")", "println!")
            && names("let a = Instant::now();", "Instant")
    );
    assert!(!names("let clock = self.clock;", "clock") && !names("tokio_like::spawn()", "tokio"));
    let text = "fn a() { }\n#[cfg(test)]\nmod tests {\n use tokio::x;\n}\nfn b() {}\n";
    let source = Source::new("controller/src/plan/x.rs".into(), text.into());
    assert_eq!(source.in_test, [false, true, true, true, true, false]);
    assert_eq!(
        source.functions().iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect::<Vec<_>>(),
        [("a", 1, 1), ("b", 6, 1)]
    );
}
