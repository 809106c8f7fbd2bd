import Basics
import EventLoops
import Glibc
import Provisioning
import Topology

/// How a declared Redis store is run: its folder, port, password and configuration.
struct RedisServer {
    let spec: StoreSpec
    let folder: String
    let port: UInt16
    let password: String

    /// Chooses what is not chosen yet and keeps it in the store's folder: port and password stay the same from then on.
    init(_ spec: StoreSpec, folder: String) throws(StackFolder.Failure) {
        self.spec = spec
        self.folder = folder
        do throws(SystemError) {
            try Files.makeFolder(folder, mode: 0o700)
            let passwordFile = folder + "/password"
            if let known = Files.text(passwordFile)?.split(separator: "\n").first {
                password = String(known)
            } else {
                password = secretHex(bytes: 24)
                try Files.replace(passwordFile, with: Array((password + "\n").utf8), mode: 0o600)
            }
            let portFile = folder + "/port"
            if let declared = spec.port {
                port = declared
            } else if let known = Files.text(portFile)?.split(separator: "\n").first.flatMap({ UInt16($0) }), RedisServer.isFree(known) {
                port = known
            } else {
                port = try freePort()
            }
            try Files.replace(portFile, with: Array("\(port)\n".utf8))
            try Files.replace(folder + "/redis.conf", with: Array(configuration.utf8))
        } catch { throw StackFolder.Failure("store \(spec.name): \(error)") }
    }

    static func isFree(_ port: UInt16) -> Bool {
        let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(fd) }
        var one: Int32 = 1
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, 4)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(fd, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) } == 0
        }
    }

    /// Loopback only, password always. A store of state never evicts (F1.1): when it is full, writes fail and say so.
    var configuration: String {
        RedisConfiguration(port: port, folder: folder, memory: spec.memory, role: spec.role == .state ? .state : .cache).text
    }

    /// The password comes by standard input: it stands in no argument and in no configuration file.
    func program(_ path: String, environment: [String: String]) -> Program {
        Program(
            path: path, arguments: [folder + "/redis.conf", "-"], environment: environment, folder: folder,
            input: Array(RedisConfiguration.secrets(password: password, isCluster: false).utf8))
    }

    var url: String { "redis://:\(password)@127.0.0.1:\(port)" }
}
