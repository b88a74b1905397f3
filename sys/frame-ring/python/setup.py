from setuptools import Extension, setup

reader = Extension(
    "headworks._headworks",
    ["headworks/_headworks.c"],
    include_dirs=["../include"],
    depends=["../include/headworks.h"],
    define_macros=[("_GNU_SOURCE", "1")],
)
setup(ext_modules=[reader])
