"""The engine in a browser: JavaScript modules, WebAssembly, a page, and how Python serves them."""
