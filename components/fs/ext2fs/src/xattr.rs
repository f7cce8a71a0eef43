//! Names of extended attributes, xattr(7): rsext4 has the part before the first dot as a number.

use abi::Errno;
use rsext4::{XattrName, XattrNamespace};

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";
const PREFIXES: [(&[u8], XattrNamespace); 3] = [
    (b"user.", XattrNamespace::User),
    (b"trusted.", XattrNamespace::Trusted),
    (b"security.", XattrNamespace::Security),
];

/// The namespace of a name and the rest of it. `EOPNOTSUPP` for a namespace that files do not have.
pub(crate) fn split(name: &[u8]) -> Result<(XattrNamespace, &[u8]), Errno> {
    if name == ACCESS {
        return Ok((XattrNamespace::PosixAclAccess, b""));
    }
    if name == DEFAULT {
        return Ok((XattrNamespace::PosixAclDefault, b""));
    }
    PREFIXES
        .iter()
        .find_map(|(prefix, namespace)| Some((*namespace, name.strip_prefix(*prefix)?)))
        .filter(|(_, rest)| !rest.is_empty())
        .ok_or(Errno::EOPNOTSUPP)
}

/// The names as listxattr(2) gives them.
pub(crate) fn join(names: &[XattrName]) -> Vec<u8> {
    let mut out = Vec::new();
    for name in names {
        let prefix = match name.namespace {
            XattrNamespace::PosixAclAccess => ACCESS,
            XattrNamespace::PosixAclDefault => DEFAULT,
            namespace => match PREFIXES.iter().find(|(_, n)| *n == namespace) {
                Some((prefix, _)) => prefix,
                None => continue,
            },
        };
        out.extend_from_slice(prefix);
        out.extend_from_slice(&name.name);
        out.push(0);
    }
    out
}

/// What is not there has an errno of its own among attributes.
pub(crate) fn error(error: Errno) -> Errno {
    if error == Errno::ENOENT {
        Errno::ENODATA
    } else {
        error
    }
}
