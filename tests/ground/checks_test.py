#!/usr/bin/env python3
"""Tests the ground tests themselves: each must find what is planted, and be silent where nothing is wrong."""

import tempfile
import unittest
from pathlib import Path

import formatting
import headers
import layers
import neatness

LAYERS = "common:\nfs/storage:common\nfs/tree:fs/storage\nmirror/channel:common\n"


class Planted(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.write("common/a.h", "#pragma once\nstruct A {};\n")
        self.write("fs/storage/b.h", '#pragma once\n#include "common/a.h"\nstruct B : A {};\n')
        self.write("fs/tree/c.cpp", '#include "common/a.h"\n#include "fs/storage/b.h"\n#include <vector>\n')

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def layer_findings(self):
        return layers.check(self.root, LAYERS)[0]

    def test_a_clean_tree_passes_all(self):
        self.assertEqual(self.layer_findings(), [])
        self.assertEqual(headers.check(self.root, "c++")[0], [])
        self.assertEqual(neatness.check(self.root)[0], [])

    def test_an_include_of_a_higher_layer(self):
        self.write("fs/storage/bad.h", '#include "fs/tree/c.h"\n')
        self.assertIn("fs/storage does not depend on fs/tree", self.layer_findings()[0])

    def test_an_include_of_a_side_layer(self):
        self.write("mirror/channel/bad.cpp", '  #  include "fs/storage/b.h"\n')
        self.assertIn("mirror/channel does not depend on fs/storage", self.layer_findings()[0])

    def test_an_include_without_its_folder_or_without_a_file(self):
        self.write("common/bad.cpp", '#include "a.h"\n#include "common/none.h"\n')
        self.assertEqual(len(self.layer_findings()), 2)

    def test_a_heavy_header_outside_its_folder(self):
        self.write("mirror/channel/good.cpp", "#include <zmq.hpp>\n")
        self.assertEqual(self.layer_findings(), [])
        self.write("fs/tree/bad.cpp", "#include <zmq.h>\n#include <fuse_lowlevel.h>\n#include <cereal/cereal.hpp>\n")
        self.assertEqual(len(self.layer_findings()), 3)

    def test_a_folder_that_no_layer_names(self):
        self.write("fs/new/d.cpp", "")
        self.assertIn("not in layers.cmake", self.layer_findings()[0])

    def test_layers_that_are_declared_in_the_wrong_order(self):
        self.assertEqual(len(layers.check(self.root, "common:fs/tree\n" + LAYERS[8:])[0]), 1)

    def test_a_header_that_leans_on_another(self):
        self.write("common/bad.h", "#pragma once\nstruct D { std::string name; };\n")
        self.assertIn("common/bad.h does not compile alone", headers.check(self.root, "c++")[0][0])

    def test_long_files_and_functions_marks_and_paths(self):
        self.write("common/long.cpp", "\n" * 801)
        self.write("tests/long.py", "def f():\n" + "    pass\n" * 70)
        self.write("common/mark.cpp", "// TO" + "DO: later\n")
        self.write("common/path.cpp", '// see /ho' + "me/somebody/notes\n")
        self.assertEqual(len(neatness.check(self.root)[0]), 4)

    def test_code_that_is_not_formatted(self):
        self.write(".clang-format", "BasedOnStyle: Google\n")
        self.write("common/bad.cpp", "int   main( ){return 0;}\n")
        self.assertIn("common/bad.cpp", formatting.check(self.root)[0][0])


if __name__ == "__main__":
    unittest.main()
