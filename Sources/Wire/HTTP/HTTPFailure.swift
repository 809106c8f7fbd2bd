/// Why a message cannot be taken as it is, with the status that says so. After each of these failures the connection closes, because where
/// the next message would begin is no longer certain.
public enum HTTPFailure: String, Error, CaseIterable, Sendable {
    case badRequestLine = "bad_request_line"
    case badTarget = "bad_target"
    case badVersion = "bad_version"
    case badHeaderName = "bad_header_name"
    case badHeaderValue = "bad_header_value"
    case foldedHeader = "folded_header"
    case bareLineFeed = "bare_line_feed"
    case badHost = "bad_host"
    case badContentLength = "bad_content_length"
    case lengthAndChunked = "length_and_chunked"
    case badTransferEncoding = "bad_transfer_encoding"
    case unknownTransferCoding = "unknown_transfer_coding"
    case badChunk = "bad_chunk"
    case badProxyHeader = "bad_proxy_header"
    case requestLineTooLong = "request_line_too_long"
    case headTooLarge = "head_too_large"
    case bodyTooLarge = "body_too_large"
    case badStatusLine = "bad_status_line"
    case tooManyInterims = "too_many_interim_responses"
    case badExpectation = "bad_expectation"
    case headTimeout = "head_timeout"
    case bodyTimeout = "body_timeout"

    public var status: Int {
        switch self {
        case .requestLineTooLong: 414
        case .headTooLarge: 431
        case .bodyTooLarge: 413
        case .unknownTransferCoding: 501
        case .badVersion: 505
        case .badExpectation: 417
        case .headTimeout, .bodyTimeout: 408
        default: 400
        }
    }

    /// A sentence for the sender of the message.
    public var message: String {
        switch self {
        case .badRequestLine: "the request line is not 'METHOD target HTTP/1.1'"
        case .badTarget: "the request target is not a path that may be sent over HTTP"
        case .badVersion: "only HTTP/1.0 and HTTP/1.1 are spoken here"
        case .badHeaderName: "a header name has a character that may not be in one, or a space before the colon"
        case .badHeaderValue: "a header value has a control character"
        case .foldedHeader: "a header is continued on a second line, which HTTP no longer allows"
        case .bareLineFeed: "a line ends with LF alone; HTTP ends lines with CR LF"
        case .badHost: "exactly one valid Host header is needed"
        case .badContentLength: "Content-Length must be one decimal number, given once"
        case .lengthAndChunked: "Content-Length and Transfer-Encoding may not both be given"
        case .badTransferEncoding: "Transfer-Encoding must be 'chunked', once, in HTTP/1.1"
        case .unknownTransferCoding: "the only transfer coding understood is chunked"
        case .badChunk: "the chunked body is malformed"
        case .badProxyHeader: "the connection did not begin with a valid PROXY header"
        case .requestLineTooLong: "the request line is too long"
        case .headTooLarge: "the headers are too many or too large"
        case .bodyTooLarge: "the body is larger than is accepted here"
        case .badStatusLine: "the answer does not begin with a status line"
        case .tooManyInterims: "more interim responses (1xx) came than are taken before an answer"
        case .badExpectation: "the only expectation understood is 100-continue"
        case .headTimeout: "the request's head did not arrive in time"
        case .bodyTimeout: "the request's body did not arrive in time"
        }
    }
}

/// The reason phrase that is registered for a status (IANA's registry of HTTP status codes); empty when there is none, which a status line
/// may have.
public func reasonPhrase(_ status: Int) -> String {
    switch status {
    case 100: "Continue"
    case 101: "Switching Protocols"
    case 102: "Processing"
    case 103: "Early Hints"
    case 200: "OK"
    case 201: "Created"
    case 202: "Accepted"
    case 203: "Non-Authoritative Information"
    case 204: "No Content"
    case 205: "Reset Content"
    case 206: "Partial Content"
    case 207: "Multi-Status"
    case 208: "Already Reported"
    case 226: "IM Used"
    case 300: "Multiple Choices"
    case 301: "Moved Permanently"
    case 302: "Found"
    case 303: "See Other"
    case 304: "Not Modified"
    case 305: "Use Proxy"
    case 307: "Temporary Redirect"
    case 308: "Permanent Redirect"
    default: failurePhrase(status)
    }
}

private func failurePhrase(_ status: Int) -> String {
    switch status {
    case 400: "Bad Request"
    case 401: "Unauthorized"
    case 402: "Payment Required"
    case 403: "Forbidden"
    case 404: "Not Found"
    case 405: "Method Not Allowed"
    case 406: "Not Acceptable"
    case 407: "Proxy Authentication Required"
    case 408: "Request Timeout"
    case 409: "Conflict"
    case 410: "Gone"
    case 411: "Length Required"
    case 412: "Precondition Failed"
    case 413: "Content Too Large"
    case 414: "URI Too Long"
    case 415: "Unsupported Media Type"
    case 416: "Range Not Satisfiable"
    case 417: "Expectation Failed"
    case 421: "Misdirected Request"
    case 422: "Unprocessable Content"
    case 423: "Locked"
    case 424: "Failed Dependency"
    case 425: "Too Early"
    case 426: "Upgrade Required"
    case 428: "Precondition Required"
    case 429: "Too Many Requests"
    case 431: "Request Header Fields Too Large"
    case 451: "Unavailable For Legal Reasons"
    case 500: "Internal Server Error"
    case 501: "Not Implemented"
    case 502: "Bad Gateway"
    case 503: "Service Unavailable"
    case 504: "Gateway Timeout"
    case 505: "HTTP Version Not Supported"
    case 506: "Variant Also Negotiates"
    case 507: "Insufficient Storage"
    case 508: "Loop Detected"
    case 511: "Network Authentication Required"
    default: ""
    }
}
