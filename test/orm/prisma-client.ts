/**
 * Prisma's client without its generator, whose engines are downloaded from elsewhere: what a generated client would
 * hand to the library is written out here, for a schema without models, which is all that raw statements need. The
 * statements go through the query compiler that the package brings, and the driver adapter for `pg`.
 */
import { Buffer } from 'node:buffer'
import { PrismaPg } from '@prisma/adapter-pg'
import { getPrismaClient } from '@prisma/client/runtime/client'

const NO_MODELS = { models: {}, enums: {}, types: {} }

const PrismaClient = getPrismaClient({
  runtimeDataModel: NO_MODELS,
  previewFeatures: [],
  clientVersion: '7.10.0',
  engineVersion: '7.10.0',
  activeProvider: 'postgresql',
  inlineSchema: 'datasource db {\n  provider = "postgresql"\n}\n',
  parameterizationSchema: { strings: [], graph: 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA' },
  compilerWasm: {
    getRuntime: () => import('@prisma/client/runtime/query_compiler_small_bg.postgresql.mjs'),
    async getQueryCompilerWasmModule() {
      const { wasm } = await import('@prisma/client/runtime/query_compiler_small_bg.postgresql.wasm-base64.mjs')
      return new WebAssembly.Module(Buffer.from(wasm, 'base64'))
    },
    importName: './query_compiler_small_bg.js',
  },
})

export function newPrismaClient(url: string) {
  return new PrismaClient({ adapter: new PrismaPg({ connectionString: url }) })
}
