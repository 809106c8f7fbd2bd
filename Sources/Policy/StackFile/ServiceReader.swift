import Basics
import StackModel

/// Reads a service: what is run, how it is started, and how one asks whether it serves.
extension StackReader {
    mutating func service(_ name: String, _ object: CheckedObject, _ stores: [StoreSpec]) -> ServiceSpec {
        let path = "services.\(name)", uses = uses(path, object, stores), storeVariables = StoreVariables(uses, stores)
        let process = process(path, object, hasHTTP: object.places["http"] != nil, storeVariables: storeVariables)
        let restart = object.string("restart").flatMap(RestartPolicy.init) ?? .always
        if restart != .always, object.places["scale"] != nil, let place = object.places["restart"] {
            checker.report(place.line, place.column, "\(path).restart: a service that is scaled is started again always; leave 'scale' out")
        }
        let cpu = object.object("resources")?.integer("cpu"), memory = object.object("resources")?.integer("memory")
        let replicas = object.range("replicas") ?? 1...1, http = object.object("http").map(http)
        if http?.hasSocket == true, process.user != nil, let place = object.object("http")?.places["socket"] {
            checker.report(
                place.line, place.column,
                "\(path).http.socket: its socket stands in a folder that only the user who starts the stack may enter: leave 'user' or "
                    + "'socket' out")
        }
        return ServiceSpec(
            name: name, process: process, image: object.string("image"), replicas: replicas, http: http,
            check: check(path, object, process, storeVariables), restart: restart, dependsOn: object.strings("depends-on"),
            cpu: cpu, memory: memory, uses: uses, grace: object.duration("grace") ?? .seconds(10),
            startTime: object.duration("start") ?? .seconds(30),
            scaling: object.object("scale").map {
                scaling($0, ScaledService(name: name, replicas: replicas, cpu: cpu, memory: memory, http: http), stores: stores)
            })
    }

    private func http(_ object: CheckedObject) -> HTTPInterface {
        HTTPInterface(
            port: UInt16(object.integer("port") ?? 8080), isFixed: object.boolean("fixed") ?? false,
            hasSocket: object.boolean("socket") ?? false, live: object.string("live") ?? "/health/live",
            ready: object.string("ready") ?? "/health/ready", metrics: object.string("metrics"))
    }
}
