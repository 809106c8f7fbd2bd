import Autoscaling
import Basics
import TestSupport
import Testing

/// Kubernetes' arithmetic over a pod's containers, beside the cases: what counts as a pod's request and use, and what is told when figures
/// came and none can be used.
@Suite struct HPAContainerTests {
    private typealias Container = ContainerFigures.Container

    /// A restartable init container (a sidecar) goes on running beside the others: it counts. One that only prepares does not.
    @Test func sidecarsCountAmongTheRequests() throws {
        let own = [Container(name: "app", request: 500), Container(name: "log", request: 100)]
        let sidecar = Container(name: "proxy", request: 250, isRestartable: true), once = Container(name: "migrate", request: 4000)
        #expect(try ContainerFigures.request(containers: own) == 600)
        #expect(try ContainerFigures.request(containers: own, initContainers: [sidecar, once]) == 850)
        #expect(try ContainerFigures.request(containers: own, initContainers: [sidecar], container: "proxy") == 250)
        #expect(throws: MetricFault.containerNotFound("migrate")) {
            try ContainerFigures.request(containers: own, initContainers: [once], container: "migrate")
        }
        // The whole pod's own request takes the place of the sum, and not of a container that was named.
        #expect(try ContainerFigures.request(containers: own, initContainers: [sidecar], whole: 700) == 700)
        #expect(try ContainerFigures.request(containers: own, initContainers: [sidecar], whole: 700, container: "log") == 100)
        let silent = Container(name: "silent", request: nil, isRestartable: true)
        #expect(throws: MetricFault.missingRequest) { try ContainerFigures.request(containers: own, initContainers: [silent]) }
        #expect(try ContainerFigures.request(containers: own, initContainers: [Container(name: "once", request: nil)]) == 600)
        #expect(try ContainerFigures.request(containers: [Container(name: "a", request: .max), Container(name: "b", request: 1)]) == .max)
    }

    private func outcome(_ json: String) throws -> [String: JSONValue] {
        try #require(HPACase.answer("replicas", try JSONValue.parse(Array(json.utf8))))
    }

    private static func input(_ pods: String, _ samples: String) -> String {
        """
        { "metric": { "type": "resource-utilization", "resource": "cpu", "target_percent": 50, "samples": [\(samples)] },
          "current_replicas": 1, "pods": [\(pods)] }
        """
    }

    private static let old = #""phase": "Running", "ready": "True", "start_age_s": 9000, "ready_transition_age_s": 8000"#

    @Test func aSidecarChangesTheWish() throws {
        let plain = #"{ "name": "p", \#(Self.old), "containers": [{ "name": "a", "request_milli": 100 }] }"#
        let beside = #"""
            { "name": "p", \#(Self.old), "containers": [{ "name": "a", "request_milli": 100 }],
              "init_containers": [{ "name": "proxy", "request_milli": 300, "restart_policy": "Always" },
                                  { "name": "once", "request_milli": 9000 }] }
            """#
        let sample = #"{ "pod": "p", "age_s": 10, "window_s": 60, "containers": { "a": 100 } }"#
        #expect(try outcome(Self.input(plain, sample))["replicas"] == .int(2))
        // 100 of 400 is 25 %, half of the target.
        #expect(try outcome(Self.input(beside, sample))["utilization_percent"] == .int(25))
        #expect(try outcome(Self.input(beside, sample))["replicas"] == .int(1))
    }

    @Test(arguments: [
        // nothing came; figures came, of a container that says nothing, of a pod that is leaving, of one that is only starting
        ("", "no-metrics"), (#"{ "pod": "p", "age_s": 10, "window_s": 60, "containers": { "a": null } }"#, "no-usable-metrics"),
        (#"{ "pod": "leaving", "age_s": 10, "window_s": 60, "containers": { "a": 100 } }"#, "no-usable-metrics"),
        (#"{ "pod": "new", "age_s": 10, "window_s": 60, "containers": { "a": 100 } }"#, "no-usable-metrics"),
        (#"{ "pod": "stranger", "age_s": 10, "window_s": 60, "containers": { "a": 100 } }"#, "no-matching-metrics"),
    ])
    func figuresOfWhichNoneIsUsableAreToldApartFromNone(sample: String, error: String) throws {
        let pods = #"""
            { "name": "p", \#(Self.old), "containers": [{ "name": "a", "request_milli": 100 }] },
            { "name": "leaving", \#(Self.old), "deleting": true, "containers": [{ "name": "a", "request_milli": 100 }] },
            { "name": "new", "phase": "Pending", "containers": [{ "name": "a", "request_milli": 100 }] }
            """#
        #expect(try outcome(Self.input(pods, sample))["error"] == .string(error))
    }
}
