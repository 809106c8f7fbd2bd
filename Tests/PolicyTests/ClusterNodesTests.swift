import Basics
import Sharding
import Testing

@Suite struct ClusterNodesTests {
    static let a = String(repeating: "a", count: 40), b = String(repeating: "b", count: 40), c = String(repeating: "c", count: 40)

    @Test func aLineBecomesANode() throws {
        let text =
            "\(Self.a) 10.0.0.1:7001@17001,one.example myself,master - 0 1700000000 3 connected 0-5460 7000 [93->-\(Self.b)] "
            + "[77-<-\(Self.b)]\n"
            + "\(Self.b) 2001:db8::5:7002@17102 slave,fail? \(Self.a) 12 0 3 disconnected\r\n"
            + "\(Self.c) :0@0 master,noaddr,fail - 1 2 0 disconnected 9000-9001\n"
        let nodes = try ClusterNodes(text)
        let one = nodes.myself
        #expect(
            one.id == Self.a && one.address == NodeAddress(host: "10.0.0.1", port: 7001) && one.busPort == 17001
                && one.hostname == "one.example")
        #expect(one.isMaster && one.master == nil && one.configEpoch == 3 && one.isLinkUp && one.slots.description == "0-5460 7000")
        #expect(one.open == [.init(slot: 93, direction: .migrating, peer: Self.b), .init(slot: 77, direction: .importing, peer: Self.b)])
        let two = try #require(nodes.node(Self.b))
        #expect(
            two.address == NodeAddress(host: "2001:db8::5", port: 7002) && two.isReplica && two.flags.contains(.suspected) && !two.isFailed
                && !two.isLinkUp)
        #expect(two.address.description == "[2001:db8::5]:7002" && NodeAddress("[2001:db8::5]:7002") == two.address)
        let three = try #require(nodes.node(Self.c))
        #expect(ClusterNodes.node(Self.b, in: text) == two && ClusterNodes.node("x", in: text) == nil)
        #expect(three.address.host.isEmpty && three.flags.contains(.noAddress) && three.isFailed && three.slots.count == 2)
    }

    @Test func whatIsWrongIsToldWithItsLine() {
        let good = "\(Self.a) 10.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-5460\n"
        let wrong: [(String, String)] = [
            ("", "no node is 'myself'"), ("\(Self.b) 10.0.0.2:1@2 master - 0 0 1 connected\n", "no node is 'myself'"),
            (good + "x\n", "fields"), (good + good, "stands twice"),
            (good + "\(Self.b) 10.0.0.2:1@2 myself,master - 0 0 1 connected\n", "a second node"),
            (good + "\(Self.b) 10.0.0.2:1@2 king - 0 0 1 connected\n", "unknown flag 'king'"),
            (good + "\(Self.b) 10.0.0.2@2 master - 0 0 1 connected\n", "no address"),
            (good + "\(Self.b) 10.0.0.2:1@2 master - 0 0 1 connected 5-16384\n", "no range of slots"),
            (good + "\(Self.b) 10.0.0.2:1@2 master - 0 0 1 connected [5->-zz]\n", "no open slot"),
            (good + "\(Self.b) 10.0.0.2:1@2 master - 0 0 -1 connected\n", "no configuration epoch"),
            (good + "\(Self.b) 10.0.0.2:1@2 slave nobody 0 0 1 connected\n", "no master's id"),
        ]
        for (text, reason) in wrong {
            #expect(throws: ClusterNodes.Failure.self, "\(reason)") { try ClusterNodes(text) }
            do { _ = try ClusterNodes(text) } catch { #expect(error.reason.contains(reason), "\(error)") }
        }
    }

    /// Any bytes, and any good text with a byte changed: a value or a failure, never a trap; and a value names only slots that there are.
    @Test func brokenInputIsRefusedOrRead() {
        var random = SeededRandom(seed: 4)
        let good = Array(
            ("\(Self.a) 10.0.0.1:7001@17001,h myself,master - 0 1 3 connected 0-5460 [93->-\(Self.b)]\n\(Self.b) ::1:7002@17002 slave "
                + "\(Self.a) 1 0 3 connected\n")
                .utf8)
        var read = 0
        for _ in 0..<5_000 {
            var bytes = good
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let i = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<3, using: &random) {
                case 0: bytes[i] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes.remove(at: i)
                default: bytes.insert(good[Int.random(in: 0..<good.count, using: &random)], at: i)
                }
            }
            guard let nodes = try? ClusterNodes(String(decoding: bytes, as: UTF8.self)) else { continue }
            read += 1
            #expect(nodes.nodes.allSatisfy { $0.slots.slots.allSatisfy((0..<HashSlot.count).contains) })
        }
        #expect(read > 100)
    }

    // MARK: several views

    static func line(_ id: String, _ port: Int, _ flags: String, master: String = "-", epoch: Int = 1, _ slots: String = "") -> String {
        "\(id) 127.0.0.1:\(port)@\(port + 10_000) \(flags) \(master) 0 0 \(epoch) connected \(slots)\n"
    }

    static func view(_ texts: [String]) throws -> ClusterView {
        let nodes = try texts.map { try ClusterNodes($0) }
        return ClusterView(nodes, askedAt: nodes.map(\.myself.address))
    }

    @Test func viewsThatAgreeAndThoseThatDoNot() throws {
        let one = Self.line(Self.a, 1, "myself,master", "0-8191") + Self.line(Self.b, 2, "master", epoch: 2, "8192-16383")
        let same = Self.line(Self.a, 1, "master", "0-8191") + Self.line(Self.b, 2, "myself,master", epoch: 2, "8192-16383")
        let whole = try Self.view([one, same])
        #expect(whole.disagreements == [] && whole.unassigned.isEmpty && whole.owner(of: 9000)?.id == Self.b)
        let behind = Self.line(Self.a, 1, "master", "0-8192") + Self.line(Self.b, 2, "myself,master", epoch: 2, "8193-16383")
        let split = try Self.view([one, behind])
        #expect(split.disagreements.contains("127.0.0.1:2 thinks that 127.0.0.1:1 has slots 8192"))
        #expect(split.disagreements.contains("127.0.0.1:1 thinks that 127.0.0.1:2 has slots 8192"))
        let alone = try Self.view([one, Self.line(Self.b, 2, "myself,master", epoch: 2, "8192-16383")])
        #expect(alone.disagreements == ["127.0.0.1:2 does not know 127.0.0.1:1"])
    }

    /// A node that does not answer is known by what the others say, and its slots are its own as long as nobody else has them.
    @Test func aSilentNodeIsKnownFromOthers() throws {
        let view = try Self.view([
            Self.line(Self.a, 1, "myself,master", epoch: 5, "0-100") + Self.line(Self.b, 2, "master,fail", epoch: 2, "100-200")
                + Self.line(Self.c, 3, "slave", master: Self.b)
        ])
        let silent = try #require(view.member(Self.b))
        #expect(!silent.answers && silent.isFailed && silent.slots.description == "101-200")
        #expect(view.masters.map(\.id) == [Self.a] && view.replicas(of: Self.b).map(\.id) == [Self.c])
        #expect(
            view.member(named: "bbbb")?.id == Self.b && view.member(named: "127.0.0.1:3")?.id == Self.c && view.member(named: "x") == nil)
    }
}
