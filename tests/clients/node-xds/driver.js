// The driver of ../node with xDS, which takes a package and a call. It is unmodified:
// nothing here knows of lookaside.

"use strict";

require("@grpc/grpc-js-xds").register();
require("../node/driver.js");
