import Basics
import CLinux
import Glibc

/// A listening socket on a loop. Each accepted connection goes to `onAccept` as a non-blocking descriptor that
/// the callee owns.
///
/// With `shared`, several loops listen on one TCP address (`SO_REUSEPORT`) and the kernel spreads connections. The first of them is bound
/// alone, so that a port on which another process listens is told, whatever that process allows; those that `join` it come after.
/// When accepting fails (descriptors run out, say), it rests for 100 ms instead of spinning, and is then tried again whatever the error was;
/// the kernel's backlog holds the rest.
public final class Listener: Pollable {
    public let loop: EventLoop
    public private(set) var address: SocketAddress
    private var fd: Int32
    private var slot = 0
    private var isOpen = true
    private let onAccept: (Int32, SocketAddress) -> Void
    private var rest: LoopTimer?
    /// How many times accepting had to rest: for want of descriptors or memory, or for an error that is rare.
    public private(set) var interrupted = 0
    /// Called on the loop each time that accepting rests, with the reason.
    public var onTrouble: ((SystemError) -> Void)?

    /// The listening socket, to be handed to a successor.
    public var descriptor: Int32 { fd }

    /// `inherited`: a predecessor's descriptor that listens on `address` already; the listener owns it from then on.
    public init(
        loop: EventLoop, address: SocketAddress, shared: Bool = false, joins: Bool = false, inherited: Int32? = nil,
        onAccept: @escaping (Int32, SocketAddress) -> Void
    ) throws(SystemError) {
        self.loop = loop
        self.onAccept = onAccept
        if let inherited {
            fd = inherited
            // A predecessor with one loop did not share it; those that are opened beside it here could not be bound otherwise.
            var one: Int32 = 1
            if shared { setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, 4) }
        } else {
            fd = try Listener.open(address, shared: shared, joins: joins)
        }
        self.address = Listener.boundAddress(fd) ?? address
        super.init()
        do throws(SystemError) { slot = try loop.register(self, fd: fd, level: false, writable: false) } catch {
            Glibc.close(fd)
            throw error
        }
        rest = LoopTimer(loop: loop) { [unowned self] in acceptAll() }
    }

    private static func open(_ address: SocketAddress, shared: Bool, joins: Bool) throws(SystemError) -> Int32 {
        let fd = socket(address.family, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard fd >= 0 else { throw SystemError("socket") }
        var one: Int32 = 1
        if case .unix(let path) = address {
            unlink(path)
        } else {
            setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, 4)
            if shared, joins { setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, 4) }
        }
        guard let bound = address.withSockaddr({ Glibc.bind(fd, $0, $1) }), bound == 0 else {
            let failure = SystemError("listen on \(address)")
            Glibc.close(fd)
            throw failure
        }
        // Bound alone; from now on others of this user may join. (With port 0 they join the port that the kernel has chosen.)
        if shared, !joins, address.family != AF_UNIX { setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, 4) }
        // 4096 is the kernel's own ceiling (net.core.somaxconn) on today's systems.
        guard listen(fd, 4096) == 0 else {
            let failure = SystemError("listen on \(address)")
            Glibc.close(fd)
            throw failure
        }
        return fd
    }

    private static func boundAddress(_ fd: Int32) -> SocketAddress? {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let result = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(fd, $0, &length) }
        }
        guard result == 0, let address = SocketAddress(storage), address.family != AF_UNIX else { return nil }
        return address
    }

    public override func ready(_ events: UInt32) { acceptAll() }

    private func acceptAll() {
        while isOpen {
            var storage = sockaddr_storage()
            var length = UInt32(MemoryLayout<sockaddr_storage>.size)
            let accepted = muster_accept(fd, &storage, &length)
            if accepted >= 0 {
                let peer = SocketAddress(storage) ?? .unix("")
                if peer.family != AF_UNIX { setNoDelay(accepted) }
                onAccept(accepted, peer)
                continue
            }
            switch -accepted {
            case EAGAIN: return
            case EINTR, ECONNABORTED, EPROTO: continue
            default:
                // Edge-triggered: nothing else would wake us for those that wait in the queue already.
                interrupted += 1
                rest?.schedule(after: .milliseconds(100))
                onTrouble?(SystemError("accept", -accepted))
                return
            }
        }
    }

    /// Accepts the connections that the kernel has completed already, and then no more. With `keepingQueue` they are left to a successor
    /// that has the same socket.
    public func close(keepingQueue: Bool = false) {
        guard isOpen else { return }
        if !keepingQueue { acceptAll() }
        isOpen = false
        rest?.cancel()
        loop.deregister(slot: slot, fd: fd)
        Glibc.close(fd)
        if !keepingQueue, case .unix(let path) = address { unlink(path) }
    }

    deinit { if isOpen { Glibc.close(fd) } }
}

/// A TCP port of 127.0.0.1 that was free a moment ago, by asking the kernel.
public func freePort() throws(SystemError) -> UInt16 {
    let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard fd >= 0 else { throw SystemError("socket") }
    defer { Glibc.close(fd) }
    let bound = SocketAddress.loopback(port: 0).withSockaddr { Glibc.bind(fd, $0, $1) }
    guard bound == 0 else { throw SystemError("bind") }
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    _ = withUnsafeMutablePointer(to: &storage) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(fd, $0, &length) }
    }
    guard let port = SocketAddress(storage)?.port else { throw SystemError("getsockname") }
    return port
}

/// Whether nobody listens on a TCP port of 127.0.0.1 right now. A port that this user may not have (below 1024, say) is not judged: nothing
/// is known of a listener, so the answer is true. Throws when it cannot be found out, for want of descriptors, say.
public func isFreePort(_ port: UInt16) throws(SystemError) -> Bool {
    let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard fd >= 0 else { throw SystemError("socket") }
    defer { Glibc.close(fd) }
    var one: Int32 = 1
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, 4)
    if SocketAddress.loopback(port: port).withSockaddr({ Glibc.bind(fd, $0, $1) }) == 0 { return true }
    let failure = SystemError("bind 127.0.0.1:\(port)")
    switch failure.code {
    case EADDRINUSE: return false
    case EACCES: return true
    default: throw failure
    }
}

/// Closes a descriptor that nobody took over.
public func closeDescriptor(_ fd: Int32) { Glibc.close(fd) }
