import StackModel

/// Checks that no two of those that listen at ports which the file names would listen at the same one.
extension StackReader {
    /// Who listens where. At one port there may be several, each at another address.
    private struct TakenPorts {
        private var all: [UInt16: [(place: ListenAddress, owner: String)]] = [:]

        /// Nodes of stores and services listen here.
        static func local(_ port: UInt16) -> ListenAddress { ListenAddress(host: "127.0.0.1", port: port) }

        mutating func take(_ place: ListenAddress, _ owner: String) { all[place.port, default: []].append((place, owner)) }

        /// Who has it already, or a part of it.
        func owner(of place: ListenAddress) -> String? { all[place.port]?.first { $0.place.overlaps(place) }?.owner }

        /// Who has it at any address: nobody knows at which of them a service listens.
        func owner(of port: UInt16) -> String? { all[port]?.first?.owner }
    }

    /// A port is one listener's, one node's, or one replica's, and nobody else's. (What the gateway's listeners have among themselves is
    /// checked where they are read.)
    mutating func checkPorts(_ top: CheckedObject, _ services: [ServiceSpec], _ gateway: GatewaySpec?, _ stores: [StoreSpec]) {
        var taken = TakenPorts()
        if let gateway {
            for place in gateway.listeners { taken.take(place.address, "gateway.listen") }
            if let admin = gateway.admin { taken.take(admin, "gateway.admin") }
        }
        checkPorts(ofStores: top, stores, &taken)
        for entry in top.map("services") {
            guard case .object(let object) = entry.value, let http = object.object("http"), let place = http.places["fixed"],
                let service = services.first(where: { $0.name == entry.name }), service.isExclusive, let port = service.http?.port
            else { continue }
            let path = "services.\(entry.name).http.fixed"
            if http.places["port"] == nil { checker.report(place.line, place.column, "\(path): 'port' says which port it has") }
            if service.replicas.upperBound > 1 {
                checker.report(
                    place.line, place.column, "\(path): \(service.replicas.upperBound) replicas cannot listen on one port; replicas: 1")
            }
            if let owner = taken.owner(of: port) { checker.report(place.line, place.column, "\(path): port \(port) is taken by \(owner)") }
            taken.take(TakenPorts.local(port), "services.\(entry.name)")
        }
    }

    /// Of a store's ports, the first one of each other owner is told.
    private mutating func checkPorts(ofStores top: CheckedObject, _ stores: [StoreSpec], _ taken: inout TakenPorts) {
        for entry in top.map("stores") {
            guard case .object(let object) = entry.value, let store = stores.first(where: { $0.name == entry.name }),
                let settings = object.object(store.kind.rawValue), let place = settings.places["port"]
            else { continue }
            let ports = store.fixedPorts
            var told: Set<String> = []
            for port in ports {
                guard let owner = taken.owner(of: TakenPorts.local(port)), told.insert(owner).inserted else { continue }
                let which = port == ports.first ? "" : ", which one of its \(store.nodes) nodes takes,"
                checker.report(place.line, place.column, "\(store.key).port: port \(port)\(which) is taken by \(owner)")
            }
            for port in ports { taken.take(TakenPorts.local(port), "stores.\(store.name)") }
        }
    }
}
