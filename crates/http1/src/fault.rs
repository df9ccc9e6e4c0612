// xtask: table
//! Everything for which bytes are refused before they are a message, with the words for each, and the code where a client sent them.

use std::fmt;

use pylon_core::rejection::{REQUEST_FRAMING, REQUEST_HEADERS_TOO_LARGE, REQUEST_TARGET, REQUEST_URI_TOO_LONG, Reason};

macro_rules! faults {
    ($( $(#[$doc:meta])* $Name:ident = $reason:ident, $what:literal; )*) => {
        /// Why a byte must not reach anybody.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Fault { $( $(#[$doc])* $Name ),* }

        impl Fault {
            /// Every fault, in the order of this table.
            pub const ALL: &[Self] = &[$(Self::$Name),*];

            /// The code under which a request is refused for it.
            pub fn reason(self) -> &'static Reason {
                match self { $(Self::$Name => &$reason),* }
            }

            /// What in particular, for client and log.
            pub fn what(self) -> &'static str {
                match self { $(Self::$Name => $what),* }
            }
        }
    };
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what())
    }
}

impl std::error::Error for Fault {}

faults! {
    /// More than one empty line before a request line (RFC 9112 §2.2).
    LeadingLines = REQUEST_TARGET, "more than one empty line stands before the request line";
    /// A method that is no token (RFC 9110 §9.1), or none.
    Method = REQUEST_TARGET, "the method is not a token";
    /// A method of more than 64 bytes.
    MethodTooLong = REQUEST_TARGET, "the method is longer than 64 bytes";
    /// Not exactly two single blanks, or none of the three parts (RFC 9112 §3).
    RequestLine = REQUEST_TARGET, "the request line is not a method, a target and a version with one blank between each";
    /// A fragment (RFC 9112 §3.2).
    Fragment = REQUEST_TARGET, "the target has a fragment";
    /// A control byte or a byte beyond ASCII in a target.
    Target = REQUEST_TARGET, "the target has a byte that must be percent-encoded";
    /// A target that the codec cannot count.
    TargetTooLong = REQUEST_URI_TOO_LONG, "the target is longer than 65534 bytes";
    /// Neither HTTP/1.1 nor HTTP/1.0.
    Version = REQUEST_TARGET, "the version is neither HTTP/1.1 nor HTTP/1.0";
    /// LF without CR (RFC 9112 §2.2).
    BareLf = REQUEST_FRAMING, "a line ends by LF without CR";
    /// CR without LF (RFC 9112 §2.2).
    BareCr = REQUEST_FRAMING, "a CR stands without its LF";
    /// A folded line, or a blank before the first field (RFC 9112 §5.2, §2.2).
    Fold = REQUEST_FRAMING, "a line of the head begins with a blank";
    /// A blank before a colon (RFC 9112 §5.1).
    BlankBeforeColon = REQUEST_FRAMING, "a blank stands before the colon of a field";
    /// A field without a colon.
    NoColon = REQUEST_FRAMING, "a field has no colon";
    /// A field without a name.
    EmptyName = REQUEST_FRAMING, "a field has no name";
    /// A field's name that is no token.
    Name = REQUEST_FRAMING, "the name of a field is not a token";
    /// NUL or another control byte in a value (RFC 9110 §5.5).
    Control = REQUEST_FRAMING, "the value of a field has a control byte";
    /// A Content-Length that is not digits alone.
    Length = REQUEST_FRAMING, "Content-Length is not one number";
    /// A number beyond 2^63 - 1.
    TooLong = REQUEST_FRAMING, "a length is beyond 2^63 - 1";
    /// A second Content-Length, equal or not.
    Lengths = REQUEST_FRAMING, "there are several Content-Length fields";
    /// Both at once (RFC 9112 §6.3).
    LengthAndCoding = REQUEST_FRAMING, "there are both Content-Length and Transfer-Encoding";
    /// Anything but `chunked` alone (RFC 9112 §6.1).
    Coding = REQUEST_FRAMING, "Transfer-Encoding is not just `chunked`";
    /// A second Transfer-Encoding.
    Codings = REQUEST_FRAMING, "there are several Transfer-Encoding fields";
    /// Transfer-Encoding in HTTP/1.0 (RFC 9112 §6.1).
    OldCoding = REQUEST_FRAMING, "Transfer-Encoding stands in a message of HTTP/1.0";
    /// A size that is not hexadecimal digits alone.
    ChunkSize = REQUEST_FRAMING, "a chunk does not begin with a hexadecimal size";
    /// A blank before, behind or within what begins a chunk.
    ChunkBlank = REQUEST_FRAMING, "a blank stands in the line before a chunk";
    /// An extension that is not `;name`, `;name=token` or `;name="text"`.
    Extension = REQUEST_FRAMING, "the extension of a chunk is malformed";
    /// A long line before a chunk.
    ChunkLine = REQUEST_FRAMING, "the line before a chunk is longer than 256 bytes";
    /// Many extensions.
    Extensions = REQUEST_FRAMING, "the extensions of the chunks are longer than 16 KiB";
    /// Data beyond the size of a chunk, or too little of it.
    ChunkEnd = REQUEST_FRAMING, "a chunk does not end by CR LF where its size says";
    /// Long trailers.
    Trailers = REQUEST_FRAMING, "the trailers are longer than 16 KiB";
    /// More trailers than anybody needs.
    ManyTrailers = REQUEST_FRAMING, "there are more than 100 trailers";
    /// More fields than anybody needs. It is refused as a head that is too large.
    ManyFields = REQUEST_HEADERS_TOO_LARGE, "there are more than 100 fields";
}
