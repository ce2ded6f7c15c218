// What Prisma's package brings for its generated clients, without saying of which types it is.

declare module '@prisma/client/runtime/query_compiler_small_bg.postgresql.mjs' {
  export const QueryCompiler: new (options: object) => never
  export function __wbg_set_wasm(exports: unknown): void
}

declare module '@prisma/client/runtime/query_compiler_small_bg.postgresql.wasm-base64.mjs' {
  export const wasm: string
}

declare const WebAssembly: { readonly Module: new (bytes: Uint8Array) => object }
