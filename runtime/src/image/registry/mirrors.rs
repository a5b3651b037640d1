//! A reference's places as one origin: whichever has it answers. What comes from a mirror is checked as everything is;
//! a mirror that fails costs time and never an answer.

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::Registry;
use super::conf::Conf;
use crate::error::{Error, Result};
use crate::image::manifest::Descriptor;
use crate::image::pull::{Fetched, Origin};
use crate::image::{ImageRef, RefError, StoreOptions};

/// The places of one reference, in order; at least one.
pub(in crate::image) struct Mirrors {
    places: Vec<(String, Registry)>,
    /// The one that had the manifest: blobs are there as well.
    best: AtomicUsize,
    /// Mirrors that sent wrong bytes: not asked again by this pull.
    distrusted: Vec<AtomicBool>,
}

impl Mirrors {
    /// As `registries.conf` says.
    ///
    /// # Errors
    /// `Registry` `BX0301`.
    pub(in crate::image) fn of(reference: &ImageRef, options: &StoreOptions) -> Result<Self> {
        let conf = match &options.registries_conf {
            Some(file) => Conf::read(file)?,
            None => Conf::default(),
        };
        let mut places = Vec::new();
        for place in conf.places(reference)? {
            let host = at(reference, &place.name)?.host().to_owned();
            let mut options = options.clone();
            if place.insecure {
                options.insecure.insert(host.clone());
            }
            places.push((place.name, Registry::new(&host, &options)?));
        }
        let distrusted = places.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(Self { places, best: AtomicUsize::new(0), distrusted })
    }

    /// The registry itself, for what mirrors are not asked for.
    pub(in crate::image) fn primary(&self) -> Result<&Registry> {
        let last = self.places.last().map(|(_, registry)| registry);
        last.ok_or_else(|| Error::Unsupported("a reference without a registry".to_owned()))
    }

    /// Tries the best place first; where none answers, the registry's own word counts.
    fn first<'s, T>(&'s self, reference: &ImageRef, ask: impl Fn(&'s Registry, &ImageRef) -> Result<T>) -> Result<T> {
        let best = self.best.load(Ordering::Relaxed);
        let order = std::iter::once(best).chain((0..self.places.len()).filter(|n| *n != best));
        let order = order.filter(|n| !self.distrusted[*n].load(Ordering::Relaxed));
        let mut last = None;
        for n in order {
            let (name, registry) = &self.places[n];
            match ask(registry, &at(reference, name)?) {
                Ok(answer) => {
                    self.best.store(n, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) if n + 1 < self.places.len() => {
                    tracing::info!(mirror = %name, %error, "a mirror did not answer as it should");
                    last.get_or_insert(error);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::Unsupported("a reference without a registry".to_owned())))
    }
}

/// The reference as it is called at a place.
fn at(reference: &ImageRef, name: &str) -> Result<ImageRef> {
    let tag = reference.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
    let digest = reference.digest().map(|digest| format!("@{digest}")).unwrap_or_default();
    let parsed = format!("{name}{tag}{digest}").parse();
    parsed.map_err(|e: RefError| super::failure::message("BX0301", format!("registries.conf: {e}")))
}

impl Origin for Mirrors {
    fn manifest(&self, reference: &ImageRef) -> Result<Fetched> {
        self.first(reference, |registry, reference| registry.manifest(reference))
    }

    fn blob(&self, reference: &ImageRef, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + '_>> {
        self.first(reference, |registry, reference| registry.blob(reference, blob, from))
    }

    /// Only from the place that serves: which one that is, is found out by whoever reads the layer.
    fn part(&self, reference: &ImageRef, blob: &Descriptor, from: u64, to: u64) -> Result<Option<Box<dyn Read + '_>>> {
        let Some((name, registry)) = self.places.get(self.best.load(Ordering::Relaxed)) else { return Ok(None) };
        registry.part(&at(reference, name)?, blob, from, to)
    }

    fn is_lasting(&self) -> bool {
        true
    }

    /// Only mirrors: what the registry itself sends is the last word.
    fn distrust(&self) -> bool {
        let best = self.best.load(Ordering::Relaxed);
        let is_mirror = best + 1 < self.places.len();
        if is_mirror && !self.distrusted[best].swap(true, Ordering::Relaxed) {
            tracing::warn!(mirror = %self.places[best].0, "a mirror sent wrong bytes; it is not asked again");
        }
        // of several layers fetched at once, the first to notice has already moved on
        self.distrusted.iter().any(|d| d.load(Ordering::Relaxed))
    }
}
