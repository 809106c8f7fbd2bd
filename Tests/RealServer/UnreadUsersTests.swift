import Basics
import EventLoops
import Redis
import Sharding
import TestSupport
import Testing

@testable import Provisioning

/// Users are copied from node to node. That a node does not tell its users does not mean that it has none.
@Suite struct UnreadUsersTests {
    private static let alice = "*2\r\n+user default on nopass ~* &* +@all\r\n+user alice on nopass ~* &* +@all\r\n"

    /// A node that greets, and answers `ACL LIST` with these bytes, or not at all where they are empty.
    private static func node(_ list: String) throws -> RawBackend {
        try RawBackend { peer, _ in
            while true {
                let words = peer.redisCommand()
                if words.isEmpty { return }
                if words == ["ACL", "LIST"] {
                    // Answers come in the order of the questions: whoever leaves one out says nothing more.
                    if list.isEmpty {
                        _ = peer.readToEnd()
                        return
                    }
                    peer.send(list)
                } else {
                    peer.send(words[0] == "HELLO" ? "%1\r\n+server\r\n+redis\r\n" : "+OK\r\n")
                }
            }
        }
    }

    private func copy(_ ours: String, _ theirs: String) async throws -> [String] {
        let model = try Self.node(ours), other = try Self.node(theirs)
        defer { for node in [model, other] { node.stop() } }
        return try await withLoop { loop in
            let session = ClusterSession(
                seeds: [], credentials: RedisCredentials(password: nil), loop: loop, commandTime: .milliseconds(500))
            defer { session.close() }
            var told: [String] = []
            try await session.copyUsers(
                from: NodeAddress(host: "127.0.0.1", port: model.port), to: NodeAddress(host: "127.0.0.1", port: other.port)
            ) { told.append($0) }
            return told
        }
    }

    @Test func theUsersThatANodeLacksAreCopied() async throws {
        let told = try await copy(Self.alice, "*0\r\n")
        #expect(told.count == 1 && told[0].hasSuffix("has the user 'alice'"), "\(told)")
        #expect(try await copy(Self.alice, Self.alice) == [])
    }

    /// Whichever of the two does not tell them: nothing is done, and that is no success.
    @Test(arguments: [
        ("", ProvisioningFailure.Code.unreachable), ("-LOADING Redis is loading the dataset in memory\r\n", .server),
        ("-BUSY Redis is busy\r\n", .server), ("+OK\r\n", .server),
    ]) func whoDoesNotTellItsUsersIsAFailure(list: String, code: ProvisioningFailure.Code) async throws {
        for (ours, theirs) in [(list, "*0\r\n"), (Self.alice, list)] {
            let failure = await #expect(throws: ProvisioningFailure.self) { try await copy(ours, theirs) }
            #expect(failure?.code == code, "\(String(describing: failure))")
        }
    }

    /// A server that knows no users has none. Who may not ask for them cannot copy them, and hears so.
    @Test func whoHasNoneIsNoFailure() async throws {
        #expect(try await copy("-ERR unknown command 'ACL', with args beginning with: 'LIST'\r\n", Self.alice) == [])
        let told = try await copy(Self.alice, "-NOPERM this user has no permissions to run the 'acl|list' command\r\n")
        #expect(told.count == 1 && told[0].hasPrefix("users are not copied: ") && told[0].contains("NOPERM"), "\(told)")
    }

    @Test func whatANodeDoesNotTellIsKnownAsUnread() async throws {
        let silent = try Self.node(""), old = try Self.node("-ERR unknown command 'ACL'\r\n")
        defer { for node in [silent, old] { node.stop() } }
        try await withLoop { loop in
            let session = ClusterSession(
                seeds: [], credentials: RedisCredentials(password: nil), loop: loop, commandTime: .milliseconds(500))
            defer { session.close() }
            let first = await session.common(of: NodeAddress(host: "127.0.0.1", port: silent.port))
            #expect(first.users == nil && first.unread["users"] != nil, "\(first)")
            let second = await session.common(of: NodeAddress(host: "127.0.0.1", port: old.port))
            #expect(second.users == nil && second.unread["users"] == nil, "\(second)")
        }
    }
}
