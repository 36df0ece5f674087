//! ACLs as archivers write them, in words, turned into what the kernel keeps.

use anyhow::{Context, Result, bail};

/// Version of the kernel's format (include/uapi/linux/posix_acl_xattr.h).
const VERSION: u32 = 2;

/// The id of entries that are nobody's.
const NOBODY: u32 = u32::MAX;

/// The value of `system.posix_acl_access` or `..._default` for the words in `text`, such as
/// `user::rwx,user:1000:r-x,group::r-x,mask::r-x,other::---`.
pub(super) fn parse(text: &[u8]) -> Result<Vec<u8>> {
    let text = std::str::from_utf8(text).context("an ACL is not UTF-8")?;
    let mut value = VERSION.to_le_bytes().to_vec();
    for entry in text.split([',', '\n']).map(str::trim) {
        // acl_to_text(3) adds effective rights as a remark.
        let entry = entry.split('#').next().unwrap_or("").trim();
        if entry.is_empty() {
            continue;
        }
        let (tag, permissions, id) = parse_entry(entry)?;
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    Ok(value)
}

fn parse_entry(entry: &str) -> Result<(u16, u16, u32)> {
    let wrong = || format!("`{entry}` is not an entry of an ACL");
    let mut fields = entry.split(':');
    let mut field = || fields.next().with_context(wrong);
    let (kind, name, rights) = (field()?, field()?, field()?);
    // star and bsdtar append the number to a name.
    let number = fields.next().unwrap_or(name);
    let mut permissions = 0;
    for right in rights.chars() {
        permissions |= match right {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            '-' => 0,
            _ => bail!(wrong()),
        };
    }
    let id = || match number.parse() {
        Ok(id) => Ok(id),
        Err(_) => bail!(
            "an ACL names `{name}`, whose number is not known here: make the archive with \
             `--xattrs --xattrs-include='*'` in the place of `--acls`"
        ),
    };
    let (tag, id) = match (kind, name) {
        ("user" | "u", "") => (0x01, NOBODY),
        ("user" | "u", _) => (0x02, id()?),
        ("group" | "g", "") => (0x04, NOBODY),
        ("group" | "g", _) => (0x08, id()?),
        ("mask" | "m", _) => (0x10, NOBODY),
        ("other" | "o", _) => (0x20, NOBODY),
        _ => bail!(wrong()),
    };
    Ok((tag, permissions, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_the_kernels_bytes() {
        let value =
            parse(b"user::rwx\nuser:1000:r-x\ngroup::r--\nmask::r-x\nother::---\n").unwrap();
        let mut expected = vec![2, 0, 0, 0];
        for (tag, rights, id) in [
            (1, 7, 0xff),
            (2, 5, 0),
            (4, 4, 0xff),
            (16, 5, 0xff),
            (32, 0, 0xff),
        ] {
            expected.extend([tag, 0, rights, 0]);
            expected.extend(if tag == 2 { [0xe8, 3, 0, 0] } else { [id; 4] });
        }
        assert_eq!(value, expected);
        assert_eq!(
            parse(b"user:x:rwx:7,other::r--").unwrap()[8..12],
            [7, 0, 0, 0]
        );
    }

    #[test]
    fn names_and_nonsense_are_refused() {
        let refused = |text: &str| parse(text.as_bytes()).unwrap_err().to_string();
        assert!(refused("user:daemon:rwx").contains("--xattrs-include='*'"));
        assert!(refused("rwx").contains("not an entry"));
        assert!(refused("user::rwz").contains("not an entry"));
    }
}
