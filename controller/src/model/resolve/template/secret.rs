//! What a template takes of Secrets: sealed values, by name and key. Nobody here can read them.

use super::{Data, dangling, no_such_key};
use crate::model::object::{EnvFromSpec, SecretSpec};
use crate::model::resolve::Resolver;
use crate::model::{Diagnostic, EnvValue, Kind, ObjectKey, ObjectSpec, SecretUse, Span, codes};

fn secret<'a>(r: &mut Resolver<'a>, key: &ObjectKey, name: &str, field: &str, span: &Span) -> Option<&'a SecretSpec> {
    let target = ObjectKey { stack: key.stack.clone(), kind: Kind::Secret, name: name.to_owned() };
    match r.index.get(&target).map(|object| &object.spec) {
        Some(ObjectSpec::Secret(secret)) => Some(secret),
        _ => {
            dangling(r, key, &target, field, span);
            None
        }
    }
}

fn sealed(data: &Data, name: &str, key: &str) -> Option<SecretUse> {
    let sealed = String::from_utf8_lossy(&data.get(key)?.bytes).into_owned();
    Some(SecretUse { secret: name.to_owned(), key: key.to_owned(), sealed })
}

/// One value for a variable; without a key, the only one there is.
pub(super) fn variable(
    resolver: &mut Resolver<'_>,
    key: &ObjectKey,
    (name, wanted): (&str, Option<&str>),
    field: &str,
    span: &Span,
) -> Option<SecretUse> {
    let found = secret(resolver, key, name, field, span)?;
    let only = match found.data.keys().collect::<Vec<_>>().as_slice() {
        [only] => Some(only.as_str()),
        _ => None,
    };
    let Some(wanted) = wanted.or(only) else {
        let keys = found.data.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let what = format!("`{field}` names no key of Secret `{name}`, which has not exactly one");
        resolver
            .fail(Diagnostic::error(codes::DANGLING, what).at(span.clone()).note(format!("its keys are: {keys}")), key);
        return None;
    };
    if found.binary.contains(wanted) {
        let what = format!("`{field}`: key `{wanted}` of Secret `{name}` is not text");
        resolver.fail(Diagnostic::error(codes::VALUE, what).at(span.clone()), key);
        return None;
    }
    let value = sealed(&found.data, name, wanted);
    if value.is_none() {
        no_such_key(resolver, key, ("Secret", name, wanted), &found.data, span);
    }
    value
}

/// As Kubernetes' `envFrom`: what cannot be a variable is left out.
pub(super) fn variables(
    resolver: &mut Resolver<'_>,
    key: &ObjectKey,
    from: &EnvFromSpec,
) -> Option<Vec<(String, EnvValue)>> {
    let found = secret(resolver, key, &from.name, "envFrom", &from.span)?;
    let values = found.data.keys().filter(|name| !found.binary.contains(*name)).filter_map(|name| {
        let value = EnvValue::Secret(sealed(&found.data, &from.name, name)?);
        let name = format!("{}{name}", from.prefix);
        (!name.contains('=')).then_some((name, value))
    });
    Some(values.collect())
}

/// The files of a mount with their paths inside: one key at the path itself, or all below it.
pub(super) fn files(
    resolver: &mut Resolver<'_>,
    key: &ObjectKey,
    (name, wanted): (&str, Option<&str>),
    path: &str,
    span: &Span,
) -> Option<Vec<(String, SecretUse)>> {
    let found = secret(resolver, key, name, "secret", span)?;
    let Some(wanted) = wanted else {
        let under = |file: &str| format!("{}/{file}", path.trim_end_matches('/'));
        let all = found.data.keys().filter_map(|file| Some((under(file), sealed(&found.data, name, file)?)));
        return Some(all.collect());
    };
    let value = sealed(&found.data, name, wanted);
    if value.is_none() {
        no_such_key(resolver, key, ("Secret", name, wanted), &found.data, span);
    }
    Some(vec![(path.to_owned(), value?)])
}
