import shutil
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.sdist import sdist

# Beside this directory in the source tree, where C finds it too; inside it in a source distribution, which has nothing beside it.
HEADER = Path("include/headworks.h")
INCLUDE = HEADER.parent if HEADER.exists() else Path("..") / HEADER.parent


class SourceDistribution(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        header = Path(base_dir) / HEADER
        header.parent.mkdir(exist_ok=True)
        shutil.copyfile(INCLUDE / HEADER.name, header)


reader = Extension(
    "headworks._headworks",
    ["headworks/_headworks.c"],
    include_dirs=[str(INCLUDE)],
    depends=[str(INCLUDE / HEADER.name)],
    define_macros=[("_GNU_SOURCE", "1")],
)
setup(ext_modules=[reader], cmdclass={"sdist": SourceDistribution})
