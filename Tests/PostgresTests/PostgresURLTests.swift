import Basics
import EventLoops
import Postgres
import TestSupport
import Testing

@Suite struct PostgresURLTests {
    @Test func partsAreTakenAsLibpqTakesThem() throws {
        let url = try PostgresURL(
            "postgresql://us%40er:pa%2Fss@db1:5433,[::1],10.0.0.1/app?target_session_attrs=read-write&connect_timeout=3&application_name=x%20y&options=-c%20a%3Db"
        )
        #expect(url.hosts.map(\.description) == ["db1:5433", "[::1]:5432", "10.0.0.1:5432"])
        #expect(url.user == "us@er" && url.password?.reveal == "pa/ss" && url.database == "app" && url.target == .readWrite)
        #expect(url.connectTime == .seconds(3) && url.applicationName == "x y" && url.options == "-c a=b" && url.encryption == .prefer)
        let socket = try PostgresURL("postgres:///db?host=/run/pg&port=5499&user=u&password=p&sslmode=verify-full&channel_binding=require")
        #expect(socket.hosts == [.init(directory: "/run/pg/", port: 5499)] && socket.hosts[0].isSocket && socket.database == "db")
        #expect(
            socket.hosts[0].endpoint == .address(.unix("/run/pg/.s.PGSQL.5499")) && socket.user == "u" && socket.password?.reveal == "p")
        #expect(socket.encryption == .verifyFull && socket.channelBinding == .require)
        #expect(try PostgresURL("postgresql://%2Frun%2Fpg:1234/db").hosts == [.init(directory: "/run/pg", port: 1234)])
        #expect(try PostgresURL("postgresql://").hosts == [.init(directory: "/var/run/postgresql")])
        let several = try PostgresURL("postgresql:///?host=a,b&port=1,2")
        #expect(several.hosts.map(\.description) == ["a:1", "b:2"])
        #expect(try PostgresURL("postgresql://a,b?port=7").hosts.map(\.description) == ["a:7", "b:7"])
    }

    @Test(arguments: [
        ("mysql://h/db", "postgresql://"), ("h:5432", "form"), ("postgresql://h:0", "host:port"), ("postgresql://h:99999", "host:port"),
        ("postgresql://a b", "host:port"), ("postgresql://h/a/b", "too many"), ("postgresql://h?sslmode=allow", "prefer"),
        ("postgresql://h?sslmode=maybe", "verify-full"), ("postgresql://h?target_session_attrs=master", "read-write"),
        ("postgresql://h?nonsense=1", "stand"), ("postgresql://h?connect_timeout=0", "whole seconds"),
        ("postgresql://h?connect_timeout=99999999999999999999", "whole seconds"), ("postgresql://a,b?port=1,2,3", "3 ports"),
        ("postgresql://h?port=0", "65535"), ("postgresql://h?host=x", "one of them"), ("postgresql://u:%zz@h", "%25"),
        ("postgresql://u:%ff@h", "UTF-8"), ("postgresql://u:%00@h", "zero"), ("postgresql://h?sslkey=x", "sslcert"),
        ("postgresql://u:p@h?password-file=/x", "one of them"), ("postgresql://h?password-file=/not/there", "password-file"),
    ])
    func refuses(text: String, word: String) {
        let failure = #expect(throws: PostgresURL.Failure.self) { try PostgresURL(text) }
        #expect(failure?.reason.contains(word) == true, "\(text): \(failure?.reason ?? "")")
    }

    @Test func manyHostsAndLongTextsAreRefused() {
        #expect(throws: PostgresURL.Failure.self) { try PostgresURL("postgresql://" + String(repeating: "h,", count: 64) + "h") }
        #expect(throws: PostgresURL.Failure.self) { try PostgresURL("postgresql://h/" + String(repeating: "x", count: 70_000)) }
        #expect(throws: PostgresURL.Failure.self) { try PostgresURL("postgresql:///?host=/" + String(repeating: "x", count: 100)) }
    }

    /// Whatever a password has in it: printed, dumped or in an error it does not show.
    @Test(arguments: ["pa/ss", "a?b", "a#b", "a@b", "a:b", "%2Fx", "/", "=="])
    func thePasswordIsNeverPrinted(password: String) throws {
        for form in ["postgresql://:\(password)@h:1", "postgresql://u:\(password)@h,i:2/db?connect_timeout=1"] {
            let url = try PostgresURL(form)
            #expect(url.password?.reveal.isEmpty == false)
            var dumped = ""
            dump(url, to: &dumped)
            for text in ["\(url)", String(reflecting: url), dumped, "\(url.password!)"] {
                #expect(!text.contains(":\(password)@") && !text.contains(url.password!.reveal + "@"), "\(text)")
            }
        }
        for form in ["postgresql://u:\(password)@h:x", "postgresql://u:\(password)@h?no=1", "mysql://u:secretword@h"] {
            let failure = #expect(throws: PostgresURL.Failure.self) { try PostgresURL(form) }
            #expect(failure.map { "\($0)".contains(":\(password)@") } == false && failure?.reason.contains("secretword") == false)
        }
    }

    @Test func aPasswordMayStandInAFile() async throws {
        try await withFolder { folder in
            try Files.replace(folder + "/p", with: Array("from a file\nmore".utf8))
            #expect(try PostgresURL("postgresql://u@h?password-file=\(folder)/p").password?.reveal == "from a file")
            try Files.replace(folder + "/empty", with: [10])
            #expect(throws: PostgresURL.Failure.self) { try PostgresURL("postgresql://u@h?password-file=\(folder)/empty") }
        }
    }
}
