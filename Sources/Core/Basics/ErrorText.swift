import Glibc

/// The system's own words for an error number: `Connection refused`.
public func errorText(_ code: Int32) -> String {
    var buffer = [CChar](repeating: 0, count: 256)
    guard strerror_r(code, &buffer, buffer.count) == 0 else { return "error \(code)" }
    return buffer.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
}

/// A failed call to the operating system: which call, on which object, and why. With code 0 no call has failed, and `call` says everything.
public struct SystemError: Error, Equatable, CustomStringConvertible {
    public let call: String
    public let code: Int32
    /// Whether this machine or this process lacked something of its own: descriptors, memory, local ports, watches, space. Such a failure
    /// says nothing about the peer, and must not be counted against it.
    public let isOwnWant: Bool

    /// `isOwnWant` is derived from the code, unless the caller says otherwise.
    public init(_ call: String, _ code: Int32 = errno, isOwnWant: Bool? = nil) {
        self.call = call
        self.code = code
        switch code {
        case EMFILE, ENFILE, ENOMEM, ENOBUFS, EADDRNOTAVAIL, ENOSPC: self.isOwnWant = isOwnWant ?? true
        default: self.isOwnWant = isOwnWant ?? false
        }
    }

    public var description: String { code == 0 ? call : "\(call): \(errorText(code))" }
}
