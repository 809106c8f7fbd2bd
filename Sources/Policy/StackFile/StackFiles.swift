/// The files of which a stack file speaks: `.env`, `env-file`, folders and secrets of services. The reader opens nothing itself; it asks
/// here.
public struct StackFiles: Sendable {
    public enum Contents: Sendable {
        case bytes([UInt8])
        case absent
        case unreadable(String)
    }

    /// The bytes of a file that has at most so many.
    public let read: @Sendable (_ path: String, _ limit: Int) -> Contents
    /// Why a process cannot be started as it is described, for want of something on this machine; nil: it can, or nobody is going to
    /// start one.
    public let flaw: @Sendable (Need) -> String?

    /// What a process needs on the machine on which it is started.
    public enum Need: Sendable {
        /// A folder to work in.
        case folder(String)
        /// A file that the process reads.
        case secret(String)
        /// `NAME`, `UID`, and perhaps `:GROUP`.
        case user(String)
    }

    public init(read: @escaping @Sendable (String, Int) -> Contents, flaw: @escaping @Sendable (Need) -> String?) {
        self.read = read
        self.flaw = flaw
    }

    /// There are none, and nothing is going to be started.
    public static let none = StackFiles(read: { _, _ in .absent }, flaw: { _ in nil })
}
