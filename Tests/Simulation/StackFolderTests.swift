import Basics
import Glibc
import TestSupport
import Testing

@testable import Supervision

/// What a stack's folder says of itself. A file that cannot be read is not absent.
@Suite struct StackFolderTests {
    private func withStack(_ body: (StackFolder) throws -> Void) async throws {
        try await withFolder { folder in
            let stack = StackFolder(stackFile: folder + "/s.yaml", stack: "s")
            try stack.prepare()
            try body(stack)
        }
    }

    @Test func anIdentityIsDrawnOnceAndKept() async throws {
        try await withStack { folder in
            #expect(try folder.knownIdentity() == nil)
            let drawn = try folder.identity()
            #expect(try folder.identity() == drawn && folder.knownIdentity() == drawn)
        }
    }

    /// A number that cannot be read is not drawn anew: what runs by the old one would not be found.
    @Test func whatCannotBeReadIsNotDrawnAnew() async throws {
        try await withStack { folder in
            let table = "boot x\nweb 1 99 1 service 0\n"
            try Files.replace(folder.processes, with: Array(table.utf8))
            mkdir(folder.path + "/id", 0o700)
            #expect(throws: SystemError.self) { try folder.identity() }
            #expect(throws: SystemError.self) { try folder.knownIdentity() }
            #expect(throws: (any Error).self) { try Supervisor.endLeftovers(in: folder, purge: true) }
            #expect(Files.text(folder.processes) == table && Files.exists(folder.path + "/VERSION"))
            rmdir(folder.path + "/id")
            let identity = try folder.identity()
            #expect(try folder.controlSocket == folder.path + "/control.sock" && folder.owner == nil && folder.watcher == nil)
            try Files.replace(folder.path + "/socket", with: Array("/tmp/x/\(identity).sock\n".utf8))
            #expect(try folder.controlSocket == "/tmp/x/\(identity).sock")
            for name in ["socket", "file", "watcher"] {
                unlink("\(folder.path)/\(name)")
                mkdir("\(folder.path)/\(name)", 0o700)
            }
            #expect(throws: SystemError.self) { try folder.controlSocket }
            #expect(throws: SystemError.self) { try folder.owner }
            #expect(throws: SystemError.self) { try folder.watcher }
        }
    }
}
