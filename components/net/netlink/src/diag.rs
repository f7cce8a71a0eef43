//! Sockets: `SOCK_DIAG_BY_FAMILY`, sock_diag(7), as ss(8) asks for them.

use abi::Errno;
use inet::Inet;
use kern::Curlwp;

use crate::message::Request;
use crate::socket::Answer;

/// Answers one request.
pub(crate) fn request(
    _: &Curlwp<'_>,
    _: &Inet,
    _: &Request<'_>,
    _: &mut Answer,
) -> Result<(), Errno> {
    Err(Errno::EOPNOTSUPP)
}
