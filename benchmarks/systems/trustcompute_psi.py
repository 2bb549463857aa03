from benchmarks.system import System

SYSTEM = System(
    name="trustcompute",
    module="benchmarks.systems.trustcompute_psi",
    protocols={"intersect": ("psi.ecdh.v1",), "cardinality": ("psi.ecdh.v1",)},
)
