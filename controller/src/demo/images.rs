//! The demo's three images, made from this very binary: version 1, version 2, and one that ends too early.

use runtime::image::{BuildEntry, BuildLayer, Content, ImageBuild};
use runtime::image::{ImageRef, Store, StoreOptions};
use runtime::layout::Layout;
use runtime::runtime::ImageConfig;

use crate::cli::Failure;

/// Where the binary is in its own image.
const PROGRAM: &str = "/bin/boxship";

/// Tags, and what each runs.
const IMAGES: [(&str, &[&str]); 3] = [("1", &["web", "1"]), ("2", &["web", "2"]), ("bad", &["broken"])];

/// Puts the images into the store of a data root that no controller has open yet.
pub(super) fn build(layout: &Layout) -> Result<(), Failure> {
    let failed = |e: runtime::Error| {
        Failure::new("BX0705", format!("build the demo's images: {}", runtime::error::chain(&e)), None)
    };
    runtime::layout::make_private_dir(&layout.data_root).map_err(failed)?;
    let store = Store::open(layout, StoreOptions::default()).map_err(failed)?;
    for (tag, args) in IMAGES {
        let reference: ImageRef = format!("localhost/demo:{tag}").parse().expect("a reference written here");
        store.build(&reference, &image(args)).map_err(failed)?;
    }
    Ok(())
}

fn image(args: &[&str]) -> ImageBuild {
    let program =
        BuildEntry { path: PROGRAM.to_owned(), mode: 0o755, content: Content::HostFile("/proc/self/exe".into()) };
    // The same layer in all three: stored once.
    let layer = BuildLayer { entries: vec![program] };
    let config = ImageConfig {
        entrypoint: vec![PROGRAM.to_owned(), "demo-guest".to_owned()],
        cmd: args.iter().map(|arg| (*arg).to_owned()).collect(),
        ..ImageConfig::default()
    };
    ImageBuild { layers: vec![layer], config }
}
