/// Why a list of fields that came over HTTP/2 is refused by a reset of its stream. Nothing of such a message is passed on: what two
/// implementations could read differently, over HTTP/2 or after its translation into HTTP/1, is malformed here.
public enum FieldFault: String, Error, CaseIterable, Sendable {
    /// A name is empty, has a capital, or a character that is not a token's.
    case badName = "bad_name"
    /// A value has a control character: CR, LF and NUL would begin a line of its own in HTTP/1.
    case badValue = "bad_value"
    /// A field that speaks of the connection: HTTP/2 has none of them, and HTTP/1 would obey it.
    case connectionField = "connection_field"
    /// `te` says something else than `trailers`.
    case badTE = "bad_te"
    case unknownPseudoField = "unknown_pseudo_field"
    case repeatedPseudoField = "repeated_pseudo_field"
    /// A pseudo-field comes after an ordinary one.
    case latePseudoField = "late_pseudo_field"
    /// A pseudo-field stands in trailers.
    case pseudoFieldInTrailers = "pseudo_field_in_trailers"
    case missingPseudoField = "missing_pseudo_field"
    case badMethod = "bad_method"
    case badPath = "bad_path"
    case badScheme = "bad_scheme"
    /// `:authority` or `host` has a user, a path, a space, or is no name.
    case badAuthority = "bad_authority"
    /// Neither `:authority` nor `host` is there.
    case noAuthority = "no_authority"
    /// `host` comes twice, or names another host than `:authority`.
    case hostDiffers = "host_differs"
    /// `content-length` is no plain number, or comes twice.
    case badContentLength = "bad_content_length"
    /// The body has another length than `content-length` said.
    case wrongLength = "wrong_length"
    /// An answer's `:status` is no number of three digits.
    case badStatus = "bad_status"
    /// A message has trailers that do not end it.
    case openTrailers = "open_trailers"
    /// Something that the library found: it says the stream's fields or body are malformed.
    case malformed
}
