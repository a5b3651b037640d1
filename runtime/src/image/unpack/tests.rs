//! Bytes of strangers: whatever comes, unpacking never panics, stays within its bounds, and says the same however the
//! bytes are cut into pieces. `PROPTEST_CASES=8000` looks further.

use std::io::{Read, Write as _};
use std::os::fd::OwnedFd;

use proptest::prelude::*;
use tempfile::TempDir;

use super::extract::Extractor;
use super::report::Report;
use super::*;
use crate::image::store::tree;

/// Gives what it has in pieces of these sizes, again and again.
struct Pieces<'a> {
    bytes: &'a [u8],
    sizes: &'a [usize],
    turn: usize,
}

impl<'a> Pieces<'a> {
    fn new(bytes: &'a [u8], sizes: &'a [usize]) -> Self {
        Self { bytes, sizes, turn: 0 }
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let size = self.sizes.get(self.turn % self.sizes.len().max(1)).copied().unwrap_or(usize::MAX);
        self.turn += 1;
        let n = size.max(1).min(buffer.len()).min(self.bytes.len());
        buffer[..n].copy_from_slice(&self.bytes[..n]);
        self.bytes = &self.bytes[n..];
        Ok(n)
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// What it unpacks to, or why not; the same words for the same bytes.
fn verdict(bytes: &[u8], sizes: &[usize]) -> std::result::Result<Digest, String> {
    let digest = Digest::of(bytes);
    let found = unpacked_digest(&mut Pieces::new(bytes, sizes), &digest, bytes.len() as u64);
    found.map(|(digest, _)| digest).map_err(|error| error.to_string())
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(prop_oneof![Just(1_usize), 2..9_usize, 100..5_000_usize], 1..6)
}

/// One member or frame after another, as some packers write them; then perhaps a cut, other bits, or something behind.
fn packed() -> impl Strategy<Value = Vec<u8>> {
    let members = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3_000), 1..4);
    let harm = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    let behind = proptest::collection::vec(any::<u8>(), 0..20);
    (members, any::<bool>(), any::<Option<prop::sample::Index>>(), harm, behind).prop_map(
        |(members, is_gzip, cut, harm, behind)| {
            let mut bytes: Vec<u8> =
                members.iter().flat_map(|member| if is_gzip { gzip(member) } else { zstd(member) }).collect();
            for (at, bits) in harm {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
            }
            bytes.extend(behind);
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            bytes
        },
    )
}

proptest! {
    #[test]
    fn any_packing_is_judged_alike_in_any_pieces(bytes in packed(), sizes in sizes()) {
        prop_assert_eq!(verdict(&bytes, &[usize::MAX]), verdict(&bytes, &sizes));
    }

    #[test]
    fn any_bytes_are_judged_alike_in_any_pieces(
        head in prop_oneof![Just(&[0x1f, 0x8b][..]), Just(&[0x28, 0xb5, 0x2f, 0xfd][..]), Just(&[0x50, 0x2a, 0x4d, 0x18][..])],
        rest in proptest::collection::vec(any::<u8>(), 0..400),
        sizes in sizes(),
    ) {
        let bytes = [head, &rest].concat();
        prop_assert_eq!(verdict(&bytes, &[usize::MAX]), verdict(&bytes, &sizes));
    }
}

#[test]
fn members_and_frames_follow_one_another() {
    for pack in [gzip, zstd] {
        let both = [pack(b"one"), pack(b"two")].concat();
        assert_eq!(verdict(&both, &[7]), Ok(Digest::of(b"onetwo")));
        assert_eq!(verdict(&pack(b""), &[1]), Ok(Digest::of(b"")));
    }
}

#[test]
fn what_is_cut_or_followed_by_something_is_refused() {
    for pack in [gzip, zstd] {
        let whole = pack(&[b'x'; 5_000]);
        for cut in 4..whole.len() {
            assert!(verdict(&whole[..cut], &[100]).is_err(), "cut after {cut} of {} bytes", whole.len());
        }
        assert!(verdict(&[&whole[..], b"garbage"].concat(), &[100]).is_err());
    }
}

/// A frame that asks for a window of 2 GiB, and one that was packed with a dictionary.
#[test]
fn zstd_that_asks_for_too_much_is_refused() {
    let large = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3][..], &[0; 30]].concat();
    assert!(verdict(&large, &[100]).unwrap_err().contains("does not inflate"));
    let with_dictionary = |id: u8| [0x28, 0xb5, 0x2f, 0xfd, 0x01, 0x00, id, 0x19, 0, 0, b'o', b'n', b'e'];
    assert_eq!(verdict(&with_dictionary(0), &[100]), Ok(Digest::of(b"one")));
    assert!(verdict(&with_dictionary(7), &[100]).unwrap_err().contains("does not inflate"));
}

/// One entry as a header says it, right or not.
#[derive(Debug, Clone)]
struct Made {
    path: String,
    kind: u8,
    link: String,
    mode: u32,
    uid: u64,
    content: Vec<u8>,
    /// PAX records before it.
    pax: Vec<(String, Vec<u8>)>,
}

fn name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        8 => "[abc]",
        1 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just(".wh.a".to_owned()),
        1 => Just(".wh.b".to_owned()),
        1 => Just(".wh..wh..opq".to_owned()),
        1 => Just(".wh.".to_owned()),
        1 => Just(String::new()),
    ];
    prop_oneof![
        20 => proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join("/")),
        1 => Just("a/".repeat(130)),
        1 => Just("x".repeat(300)),
    ]
}

fn made() -> impl Strategy<Value = Made> {
    let kind = prop::sample::select(&b"00000555522211173467gSZ"[..]);
    let records = prop_oneof![
        ("SCHILY\\.xattr\\.user\\.[ab]", proptest::collection::vec(any::<u8>(), 0..40)),
        ("(size|uid|gid|mtime|path|linkpath)", "[0-9]{0,12}".prop_map(String::into_bytes)),
        ("(path|linkpath)", name().prop_map(String::into_bytes)),
    ];
    (
        (name(), kind, name(), prop::sample::select(&[0o644_u32, 0o755, 0o4755, 0, 0o2775, 0o1777][..])),
        prop_oneof![Just(0_u64), Just(1_000), Just(u64::from(u32::MAX)), Just(1 << 33)],
        proptest::collection::vec(any::<u8>(), 0..700),
        proptest::collection::vec(records, 0..3),
    )
        .prop_map(|((path, kind, link, mode), uid, content, pax)| Made {
            path,
            kind,
            link,
            mode,
            uid,
            content,
            pax,
        })
}

fn put(out: &mut Vec<u8>, kind: u8, path: &[u8], link: &[u8], mode: u32, uid: u64, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    let raw = header.as_old_mut();
    let (path, link) = (&path[..path.len().min(100)], &link[..link.len().min(100)]);
    raw.name[..path.len()].copy_from_slice(path);
    raw.linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(mode);
    header.set_uid(uid);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header.set_size(content.len() as u64);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(512), 0);
}

fn archive(all: &[Made]) -> Vec<u8> {
    let mut out = Vec::new();
    for one in all {
        let mut records = Vec::new();
        for (key, value) in &one.pax {
            let rest = key.len() + value.len() + 3;
            let len = (1..9).map(|digits| rest + digits).find(|len| len.to_string().len() + rest == *len);
            records.extend(format!("{} {key}=", len.unwrap_or(rest)).into_bytes());
            records.extend_from_slice(value);
            records.push(b'\n');
        }
        if !records.is_empty() {
            put(&mut out, b'x', b"pax", b"", 0o644, 0, &records);
        }
        if one.path.len() > 100 {
            put(&mut out, b'L', b"././@LongLink", b"", 0o644, 0, one.path.as_bytes());
        }
        let has_content = matches!(one.kind, b'0' | b'7' | b'S' | b'g');
        let content = if has_content { &one.content[..] } else { &[] };
        put(&mut out, one.kind, one.path.as_bytes(), one.link.as_bytes(), one.mode, one.uid, content);
    }
    out.resize(out.len() + 1_024, 0);
    out
}

/// Extracts into a directory of its own, beside something that is not to be touched. What came, or why nothing did; and
/// what the disk says of the tree.
fn extracted(bytes: &[u8], sizes: &[usize]) -> (std::result::Result<String, String>, Option<Digest>) {
    let dir = TempDir::new().unwrap();
    let (root, beside) = (dir.path().join("root"), dir.path().join("a"));
    std::fs::create_dir(&root).unwrap();
    std::fs::write(&beside, b"as it was").unwrap();
    let fd = OwnedFd::from(std::fs::File::open(&root).unwrap());
    let run = || -> std::result::Result<Report, super::report::Refusal> {
        let mut extractor = Extractor::below(fd)?;
        extractor.extract(&mut Pieces::new(bytes, sizes))?;
        extractor.finish()
    };
    let report = run();
    assert_eq!(std::fs::read(&beside).unwrap(), b"as it was", "something outside was written");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "something outside was made");
    let on_disk = tree::fingerprint(&root, tree::KIND_SUM, &|_| ()).unwrap();
    if let Ok(Report { tree: Some(tree), .. }) = &report {
        assert_eq!(Some(tree), on_disk.as_ref(), "the fingerprint made on the way is another one");
    }
    (report.map(|report| format!("{report:?}")).map_err(|refusal| format!("{refusal:?}")), on_disk)
}

proptest! {
    #[test]
    fn any_archive_is_extracted_alike_in_any_pieces(
        all in proptest::collection::vec(made(), 0..12),
        harm in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in any::<Option<prop::sample::Index>>(),
        sizes in sizes(),
    ) {
        let mut bytes = archive(&all);
        for (at, bits) in harm {
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        prop_assert_eq!(extracted(&bytes, &[usize::MAX]), extracted(&bytes, &sizes));
    }

    /// Headers whose sum is right, whatever else they say.
    #[test]
    fn any_header_is_read(
        headers in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 512), 1..4),
        kind in any::<u8>(),
        sizes in sizes(),
    ) {
        let mut bytes = Vec::new();
        for header in &headers {
            let mut made = tar::Header::new_old();
            made.as_mut_bytes().copy_from_slice(header);
            made.set_entry_type(tar::EntryType::new(kind));
            made.set_cksum();
            bytes.extend_from_slice(made.as_bytes());
        }
        prop_assert_eq!(extracted(&bytes, &[usize::MAX]), extracted(&bytes, &sizes));
    }
}
