// Writes the types of the server's replies: `node types.mjs OPENAPI.json [api.ts]`.
//
// The OpenAPI document comes from `python -m cupel.dashboard.openapi`; `make page-types` runs both.

import fs from "node:fs";
import openapiTS, { astToString } from "openapi-typescript";

const [source, target = `${import.meta.dirname}/src/api.ts`] = process.argv.slice(2);
const header = `// The replies of the dashboard's server. Made by \`make page-types\` from the structs of
// src/cupel/dashboard/; never changed by hand.

`;

const nodes = await openapiTS(fs.readFileSync(source, "utf8"), { alphabetize: true });
fs.writeFileSync(target, header + astToString(nodes));
