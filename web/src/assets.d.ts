// What web/build.mjs makes of an import.

declare module "*?worker" {
  /** The address of a script for `new Worker(address, { type: "module" })`. */
  const address: string;
  export default address;
}
