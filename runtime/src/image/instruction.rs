//! The instructions of a Dockerfile that only change an image's settings, as `commit` and `import` take them with
//! `--change`. Pure: text in, a changed config out.

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// What can be changed, for messages.
const KNOWN: &str = "CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR";
/// What runs a command that is written as one text, as Docker does it.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Applies one instruction (`CMD ["redis-server"]`, `ENV A=1 B=2`) to the `config` object of an image's config.
///
/// # Errors
/// `Unsupported` for what is no such instruction.
pub(crate) fn apply(config: &mut Map<String, Value>, text: &str) -> Result<()> {
    let (word, rest) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
    let rest = rest.trim();
    let refuse = |why: String| Error::Unsupported(format!("`{text}` is no change of an image: {why}"));
    if rest.is_empty() {
        return Err(refuse(format!("write an instruction and its value; there are {KNOWN}")));
    }
    match word.to_ascii_uppercase().as_str() {
        "CMD" => put(config, "Cmd", json!(command(rest))),
        "ENTRYPOINT" => {
            put(config, "Entrypoint", json!(command(rest)));
            // the other one's arguments mean nothing to this one
            config.remove("Cmd");
        }
        "USER" => put(config, "User", json!(rest)),
        "STOPSIGNAL" => put(config, "StopSignal", json!(rest)),
        "WORKDIR" if rest.starts_with('/') => put(config, "WorkingDir", json!(rest)),
        "WORKDIR" => {
            let base = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/").trim_end_matches('/').to_owned();
            put(config, "WorkingDir", json!(format!("{base}/{rest}")));
        }
        "ENV" => {
            for (name, value) in pairs(rest).map_err(refuse)? {
                set_variable(config, &name, &value);
            }
        }
        "LABEL" => {
            for (name, value) in pairs(rest).map_err(refuse)? {
                object(config, "Labels").insert(name, json!(value));
            }
        }
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let port = exposed(port).map_err(refuse)?;
                object(config, "ExposedPorts").insert(port, json!({}));
            }
        }
        "VOLUME" => {
            for path in list(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect()) {
                if !path.starts_with('/') {
                    return Err(refuse(format!("`{path}` is no absolute path")));
                }
                object(config, "Volumes").insert(path, json!({}));
            }
        }
        other => return Err(refuse(format!("`{other}` is not one of {KNOWN}"))),
    }
    Ok(())
}

fn put(config: &mut Map<String, Value>, key: &str, value: Value) {
    config.insert(key.to_owned(), value);
}

fn object<'a>(config: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = config.entry(key).or_insert(Value::Null);
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("it was just made one")
}

/// Sets one variable among those there are, in its place where it has one.
fn set_variable(config: &mut Map<String, Value>, name: &str, value: &str) {
    let mut all: Vec<String> =
        config.get("Env").and_then(|env| serde_json::from_value(env.clone()).ok()).unwrap_or_default();
    let line = format!("{name}={value}");
    match all.iter_mut().find(|known| known.split('=').next() == Some(name)) {
        Some(known) => *known = line,
        None => all.push(line),
    }
    put(config, "Env", json!(all));
}

/// `["a", "b"]`.
fn list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

fn command(text: &str) -> Vec<String> {
    list(text).unwrap_or_else(|| SHELL.into_iter().chain([text]).map(str::to_owned).collect())
}

fn exposed(port: &str) -> std::result::Result<String, String> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let is_port = number.parse::<u16>().is_ok_and(|number| number > 0);
    if !is_port || !matches!(protocol, "tcp" | "udp" | "sctp") {
        return Err(format!("`{port}` is no port"));
    }
    Ok(format!("{number}/{protocol}"))
}

/// `A=1 B="two words"`, or one `NAME the rest`.
fn pairs(text: &str) -> std::result::Result<Vec<(String, String)>, String> {
    let words = words(text)?;
    if words.first().is_some_and(|word| !word.contains('=')) {
        let (name, value) = text.split_once(char::is_whitespace).ok_or_else(|| format!("`{text}` has no value"))?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{word}` is no NAME=value")),
    };
    words.into_iter().map(pair).collect()
}

/// Words as a shell separates them: quotes and backslashes keep blanks.
fn words(text: &str) -> std::result::Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quotation mark is missing".to_owned());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Value {
        let mut config = json!({"Cmd": ["sh"], "Env": ["PATH=/bin", "A=1"], "WorkingDir": "/srv"});
        let object = config.as_object_mut().expect("an object");
        changes.iter().for_each(|change| apply(object, change).expect(change));
        config
    }

    #[test]
    fn every_instruction_changes_its_setting() {
        let config = changed(&[
            r#"CMD ["nginx", "-g", "daemon off;"]"#,
            "env A=2 B=\"two words\" C=x\\ y",
            "ENV OLD the old form",
            "LABEL a.b=1 c='d e'",
            "EXPOSE 80 53/udp",
            "VOLUME /data /log",
            r#"VOLUME ["/more"]"#,
            "WORKDIR sub",
            "USER 1000:1000",
            "STOPSIGNAL SIGQUIT",
        ]);
        assert_eq!(config["Cmd"], json!(["nginx", "-g", "daemon off;"]));
        assert_eq!(config["Env"], json!(["PATH=/bin", "A=2", "B=two words", "C=x y", "OLD=the old form"]));
        assert_eq!(config["Labels"], json!({"a.b": "1", "c": "d e"}));
        assert_eq!(config["ExposedPorts"], json!({"80/tcp": {}, "53/udp": {}}));
        assert_eq!(config["Volumes"], json!({"/data": {}, "/log": {}, "/more": {}}));
        assert_eq!((&config["WorkingDir"], &config["User"]), (&json!("/srv/sub"), &json!("1000:1000")));
        assert_eq!(config["StopSignal"], json!("SIGQUIT"));
        assert_eq!(changed(&["CMD echo hi"])["Cmd"], json!(["/bin/sh", "-c", "echo hi"]));
        let config = changed(&["ENTRYPOINT [\"/init\"]"]);
        assert_eq!((&config["Entrypoint"], config.get("Cmd")), (&json!(["/init"]), None));
    }

    #[test]
    fn what_is_no_change_of_settings_is_refused_with_what_there_is() {
        for bad in
            ["", "CMD", "RUN make", "FROM x", "EXPOSE 0", "EXPOSE x/y", "ENV =1", "ENV A=\"1", "VOLUME data", "LABEL x"]
        {
            let mut config = Map::new();
            let error = apply(&mut config, bad).expect_err(bad);
            assert!(config.is_empty() && error.to_string().contains("is no change of an image"), "{bad}: {error}");
        }
    }
}
