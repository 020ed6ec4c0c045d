# Puts the library's headers into its wheel, internal ones included: our kernels are compiled against
# exactly the version that they are loaded beside. Read by CMake after the wheel's project().
foreach(folder include ggml/include ggml/src ggml/src/ggml-cpu src)
    file(GLOB headers ${CMAKE_CURRENT_SOURCE_DIR}/vendor/llama.cpp/${folder}/*.h)
    install(FILES ${headers} DESTINATION ${SKBUILD_PLATLIB_DIR}/llama_cpp/headers/${folder})
endforeach()
