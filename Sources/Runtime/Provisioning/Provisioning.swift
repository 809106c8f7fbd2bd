/// Operations on real servers: plan, show, apply, verify.
public enum Provisioning {}
